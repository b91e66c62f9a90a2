//! What texts of candidates mention.

/// True if these words are in the text, not as parts of others: `port` is not in "report". A `*` at
/// the end stands for the rest of a word, and `#` for a number of at least two digits.
pub fn is_mentioned(text: &str, words: &str) -> bool {
    if words == "#" {
        let digits = text.split(|character: char| !character.is_ascii_digit());
        return digits.into_iter().any(|digits| digits.len() >= 2);
    }
    let (words, is_beginning) = match words.strip_suffix('*') {
        Some(beginning) => (beginning, true),
        None => (words, false),
    };
    let is_apart = |neighbor: Option<char>| neighbor.is_none_or(|neighbor| !neighbor.is_alphanumeric());
    text.match_indices(words).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + words.len()..]);
        is_apart(before.chars().next_back()) && (is_beginning || is_apart(after.chars().next()))
    })
}

/// The text in one spelling: in lower case, `on-call` as "on call", "can't" as "cannot".
pub fn plain(text: &str) -> String {
    let text = text.to_lowercase().replace('’', "'");
    let text = text.replace(['`', '"', '*'], "").replace(['-', '_'], " ");
    let text = text.replace("can't", "cannot").replace("can not", "cannot");
    let text = text.replace("won't", "will not").replace("n't", " not");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_not_parts_of_others() {
        for (text, words, expected) in [
            ("another port, slow", "port", true),
            ("port", "port", true),
            ("support says", "port", false),
            ("503 since", "3 s", false),
            ("12 orders", "#", true),
            ("1 of 2", "#", false),
            ("it panics", "panic*", true),
            ("it panics", "panic", false),
            ("a catalog", "log*", false),
        ] {
            assert_eq!(is_mentioned(text, words), expected, "{words:?} in {text:?}");
        }
    }

    #[test]
    fn spellings_are_one() {
        let text = "It *can't*  be `constant_time`: it isn’t side-channel free, and won't be";
        let expected = "it cannot be constant time: it is not side channel free, and will not be";
        assert_eq!(plain(text), expected);
    }
}
