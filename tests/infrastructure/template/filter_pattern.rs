//! CloudWatch's filter patterns for JSON log lines, as far as template.yaml uses them: `=`, `!=`,
//! `<`, `<=`, `>`, `>=`, `&&`, `||`, parentheses, and `*` in a string (Amazon CloudWatch Logs User
//! Guide, "Filter pattern syntax for metric filters").

use serde_json::Value;

/// Whether a log line matches a pattern. Panics if the pattern uses anything else.
pub fn matches(pattern: &str, line: &Value) -> bool {
    parse(pattern).matches(line)
}

enum Expression<'a> {
    Any(Vec<Self>),
    All(Vec<Self>),
    Comparison {
        selector: &'a str,
        operator: &'a str,
        value: Literal<'a>,
    },
}

enum Literal<'a> {
    Text(&'a str),
    Number(f64),
}

impl Expression<'_> {
    fn matches(&self, line: &Value) -> bool {
        match self {
            Self::Any(of) => of.iter().any(|one| one.matches(line)),
            Self::All(of) => of.iter().all(|one| one.matches(line)),
            Self::Comparison {
                selector,
                operator,
                value,
            } => {
                let pointer = selector.strip_prefix('$').expect("a selector").replace('.', "/");
                let found = line.pointer(&pointer);
                // The guide does not define it, so no pattern may depend on it.
                let is_defined = found.is_some() || *operator != "!=";
                assert!(is_defined, "`!=` with a member that {line} lacks: {selector}");
                match value {
                    Literal::Text(text) => found.and_then(Value::as_str).is_some_and(|found| match *operator {
                        "=" => is_like(found, text),
                        "!=" => !is_like(found, text),
                        other => panic!("{other} with a string"),
                    }),
                    Literal::Number(number) => found.and_then(Value::as_f64).is_some_and(|found| match *operator {
                        "=" => found.total_cmp(number).is_eq(),
                        "!=" => found.total_cmp(number).is_ne(),
                        "<" => found < *number,
                        "<=" => found <= *number,
                        ">" => found > *number,
                        ">=" => found >= *number,
                        other => panic!("{other} with a number"),
                    }),
                }
            }
        }
    }
}

/// Whether a text has the form of a pattern, in which `*` stands for any characters.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return text == pattern;
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.any(|at| is_like(&text[at..], rest))
}

fn parse(pattern: &str) -> Expression<'_> {
    let inner = pattern.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let mut parser = Parser {
        rest: inner.unwrap_or_else(|| panic!("not a pattern for JSON: {pattern}")),
    };
    let expression = parser.any();
    assert_eq!(parser.rest.trim(), "", "unknown syntax in {pattern}");
    expression
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Expression<'a> {
        let mut of = vec![self.all()];
        while self.accept("||") {
            of.push(self.all());
        }
        Expression::Any(of)
    }

    fn all(&mut self) -> Expression<'a> {
        let mut of = vec![self.term()];
        while self.accept("&&") {
            of.push(self.term());
        }
        Expression::All(of)
    }

    fn term(&mut self) -> Expression<'a> {
        if self.accept("(") {
            let inner = self.any();
            assert!(self.accept(")"), "no closing parenthesis before {:?}", self.rest);
            return inner;
        }
        Expression::Comparison {
            selector: self.word(),
            operator: self.word(),
            value: self.literal(),
        }
    }

    fn literal(&mut self) -> Literal<'a> {
        if self.accept("\"") {
            let (text, rest) = self.rest.split_once('"').expect("a closing quote");
            self.rest = rest;
            return Literal::Text(text);
        }
        let word = self.word();
        Literal::Number(
            word.parse()
                .unwrap_or_else(|_| panic!("neither a string nor a number: {word}")),
        )
    }

    /// Consumes a token if it is the next one.
    fn accept(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Everything up to the next space or parenthesis.
    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find([' ', ')']).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }
}

#[test]
fn filter_pattern_matches_like_cloudwatch() {
    let line = serde_json::json!({"status": 429, "text": "Runtime.ExitError", "record": {"status": "429"}});
    for (pattern, expected) in [
        ("{ $.status = 429 }", true),
        ("{ $.status != 429 }", false),
        ("{ $.status >= 429 && $.status < 430 }", true),
        ("{ $.status > 429 || $.status <= 428 }", false),
        // A string is no number.
        (r#"{ $.status = "429" }"#, false),
        ("{ $.record.status = 429 }", false),
        (r#"{ $.record.status = "429" }"#, true),
        ("{ $.missing = 1 }", false),
        (r#"{ $.text = "Runtime.*" }"#, true),
        (r#"{ $.text = "*Error" }"#, true),
        (r#"{ $.text = "*time*Error" }"#, true),
        (r#"{ $.text = "Exit*" }"#, false),
        (r#"{ $.text = "Runtime." }"#, false),
        (r#"{ $.text != "Runtime.*" }"#, false),
        // `&&` binds more closely than `||`.
        ("{ $.status = 429 || $.status = 1 && $.status = 2 }", true),
        ("{ ($.status = 429 || $.status = 1) && $.status = 2 }", false),
        // Only if the left side matches does the right one count.
        (r#"{ $.missing = "a" && $.missing != "b" }"#, false),
    ] {
        assert_eq!(matches(pattern, &line), expected, "{pattern}");
    }
}
