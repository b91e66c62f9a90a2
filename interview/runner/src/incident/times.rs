//! How long it took to detect the cause, to mitigate, and to prove that all is well.

use std::collections::BTreeMap;

use super::{
    State,
    grade::PROMPT,
    traffic::{self, Accepted, Event, STORED},
};
use crate::record::Times;

/// The times of an incident so far.
pub fn times(state: &State) -> Times {
    let tenths = |at: u64| at.saturating_sub(state.began) / 100;
    let seconds = |at: u64| tenths(at) as f64 / 10.0;
    let is_right =
        |named: &&super::Named| named.cause == state.incident.cause && state.incident.is_evidence(&named.evidence);
    Times {
        detect: state.named.iter().find(is_right).map(|named| seconds(named.at)),
        mitigate: state.served.and_then(|until| mitigated(state, until)).map(seconds),
        prove: state.proved.map(seconds),
        wrong_causes: state
            .named
            .iter()
            .filter(|named| named.cause != state.incident.cause)
            .count(),
    }
}

/// When the time began in which every request succeeded and every task was completed promptly, up
/// to a grade.
pub fn mitigated(state: &State, until: u64) -> Option<u64> {
    let completed = "select task_id as id, min((extract(epoch from at) * 1000)::bigint) as at
                     from incident.log where event = 'completed' group by task_id";
    let rows = state
        .scene
        .live
        .database()
        .and_then(|mut database| database.rows(completed));
    let rows = rows.unwrap_or_default();
    let completed = rows
        .iter()
        .filter_map(|row| Some((row["id"].as_i64()?, row["at"].as_u64()?)));
    let completed = completed.collect();
    let events = traffic::events(&state.scene.folder).ok()?;
    since_served(&events, &completed, state.began, until)
}

fn since_served(events: &[Event], completed: &BTreeMap<i64, u64>, began: u64, until: u64) -> Option<u64> {
    let limit = u64::try_from(PROMPT.as_millis()).ok()?;
    let is_prompt = |task: &Accepted| {
        completed
            .get(&task.id)
            .is_some_and(|at| at.saturating_sub(task.at) <= limit)
    };
    let trouble = events.iter().filter_map(|event| match event {
        Event::Refused(refused) => Some(refused.at),
        // Stored by the incident itself, long before: trouble until it is completed.
        Event::Accepted(task) if (STORED..2 * STORED).contains(&task.number) => {
            Some(completed.get(&task.id).copied().unwrap_or(until).min(until))
        }
        Event::Accepted(task) => (!is_prompt(task)).then_some(task.at),
    });
    let last = trouble.filter(|at| *at <= until).max().unwrap_or(began);
    let served = events.iter().filter_map(|event| match event {
        Event::Accepted(task) => (task.at > last && task.at <= until).then_some(task.at),
        Event::Refused(_) => None,
    });
    served.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::traffic::Refused;

    fn task(number: usize, at: u64) -> Event {
        Event::Accepted(Accepted {
            number,
            id: i64::try_from(number).expect("small"),
            at,
            title: String::new(),
            description: String::new(),
        })
    }

    #[test]
    fn mitigation_is_first_request_after_the_trouble() {
        let refused = Event::Refused(Refused {
            at: 30_000,
            request: "GET /tasks/2".to_owned(),
            status: 503,
        });
        let events = [
            task(1, 1_000),
            task(2, 20_000),
            refused,
            task(3, 40_000),
            task(4, 50_000),
        ];
        let completed = BTreeMap::from([(1, 1_500), (2, 60_000), (3, 40_100), (4, 50_100)]);
        assert_eq!(since_served(&events, &completed, 0, 70_000), Some(40_000));
        // Completed too late, or not at all.
        for late in [Some(60_001), None] {
            let mut completed = completed.clone();
            match late {
                Some(at) => completed.insert(4, at),
                None => completed.remove(&4),
            };
            assert_eq!(since_served(&events, &completed, 0, 70_000), None);
        }
        assert_eq!(since_served(&events[..1], &completed, 0, 70_000), Some(1_000));
        // A task that had failed before is completed in between.
        let events = [task(STORED, 0), task(1, 1_000), task(2, 20_000)];
        let completed = |at| BTreeMap::from([(100_000, at), (1, 1_500), (2, 20_100)]);
        assert_eq!(since_served(&events, &completed(5_000), 0, 70_000), Some(20_000));
        for (completed_at, until) in [(30_000, 70_000), (30_000, 25_000)] {
            assert_eq!(since_served(&events, &completed(completed_at), 0, until), None);
        }
    }
}
