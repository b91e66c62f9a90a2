//! The event of the event source mapping.

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A batch of records with only what the processor reads.
///
/// Parsing an [`SqsEvent`] fails as a whole if one record has a malformed or unusual value
/// anywhere, such as a message attribute: senders choose those. Here such a value counts as
/// missing.
pub struct Event(pub SqsEvent);

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Records {
            records: Vec<Value>,
        }

        let mut event = SqsEvent::default();
        let Records { records } = Records::deserialize(deserializer)?;
        event.records = records.iter().map(message).collect();
        Ok(Self(event))
    }
}

fn message(record: &Value) -> SqsMessage {
    let mut message = SqsMessage::default();
    message.message_id = text(&record["messageId"]);
    message.receipt_handle = text(&record["receiptHandle"]);
    message.body = text(&record["body"]);
    let attributes = record["attributes"].as_object().into_iter().flatten();
    let attributes = attributes.filter_map(|(name, value)| Some((name.clone(), text(value)?)));
    message.attributes = attributes.collect();
    message
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unusual_values_affect_only_their_record() {
        let good = json!({
            "messageId": "m", "receiptHandle": "r", "body": "{}",
            "attributes": {"ApproximateReceiveCount": "2"}, "messageAttributes": {},
        });
        let mut expected = SqsMessage::default();
        expected.message_id = Some("m".to_owned());
        expected.receipt_handle = Some("r".to_owned());
        expected.body = Some("{}".to_owned());
        expected.attributes = [("ApproximateReceiveCount".to_owned(), "2".to_owned())].into();
        for (member, value) in [
            (
                "messageAttributes",
                json!({"a": {"binaryValue": "not base64!", "dataType": "Binary"}}),
            ),
            (
                "messageAttributes",
                json!({"a": {"stringListValues": null, "binaryListValues": null}}),
            ),
            ("messageAttributes", json!({"a": null})),
            ("messageAttributes", json!([7])),
            ("md5OfBody", json!(7)),
            ("eventSource", json!({})),
            ("unknown", json!(1.5)),
        ] {
            let mut unusual = good.clone();
            unusual[member] = value;
            let event = json!({"Records": [good, unusual], "unknown": null});
            let Event(event) = serde_json::from_value(event).expect("an event");
            assert_eq!(event.records, [expected.clone(), expected.clone()], "{member}");
        }
        for (member, value) in [
            ("body", json!(7)),
            ("receiptHandle", json!(null)),
            ("attributes", json!(null)),
            (
                "attributes",
                json!({"ApproximateReceiveCount": 2, "SentTimestamp": null}),
            ),
        ] {
            let mut unusual = good.clone();
            unusual[member] = value;
            let Event(event) = serde_json::from_value(json!({"Records": [unusual, good]})).expect("an event");
            assert_eq!(event.records[0].message_id, expected.message_id, "{member}");
            assert_ne!(event.records[0], expected, "{member}");
            assert_eq!(event.records[1], expected, "{member}");
        }
    }
}
