//! Names of models, brought to a closed set, so that no producer can make series without end.
//!
//! It must not know what is counted by model.

/// One label for everything that was called something, but nothing that is known here.
pub const OTHER: &str = "other";

/// Labels, each with the words that a name has to hold in a row: words are cut at everything but letters and digits. The first
/// that fits wins, so what is special stands before what is general.
const RULES: &[(&str, &[&str])] = &[
    ("gpt-4o-mini", &["gpt 4o mini"]),
    ("gpt-4o", &["gpt 4o", "chatgpt 4o"]),
    ("gpt-4.1-mini", &["gpt 4 1 mini", "gpt 4 1 nano"]),
    ("gpt-4.1", &["gpt 4 1"]),
    ("gpt-4.5", &["gpt 4 5"]),
    ("gpt-4-turbo", &["gpt 4 turbo", "gpt 4 1106", "gpt 4 0125", "gpt 4 vision"]),
    ("gpt-4", &["gpt 4", "gpt4"]),
    ("gpt-3.5-turbo", &["gpt 3 5 turbo", "gpt 35 turbo"]),
    ("gpt-3.5", &["gpt 3 5", "gpt 35"]),
    ("gpt-5-mini", &["gpt 5 mini", "gpt 5 nano"]),
    ("gpt-5", &["gpt 5"]),
    ("gpt-oss", &["gpt oss"]),
    ("o1-preview", &["o1 preview"]),
    ("o1-mini", &["o1 mini"]),
    ("o1", &["o1"]),
    ("o3-mini", &["o3 mini"]),
    ("o3", &["o3"]),
    ("o4-mini", &["o4 mini"]),
    ("o4", &["o4"]),
    ("claude-3.7-sonnet", &["claude 3 7 sonnet", "claude 3 7"]),
    ("claude-3.5-sonnet", &["claude 3 5 sonnet"]),
    ("claude-3.5-haiku", &["claude 3 5 haiku"]),
    ("claude-3-opus", &["claude 3 opus"]),
    ("claude-3-sonnet", &["claude 3 sonnet"]),
    ("claude-3-haiku", &["claude 3 haiku"]),
    ("claude-opus-4", &["claude opus 4", "claude 4 opus", "claude 4 1 opus", "claude 4 5 opus"]),
    ("claude-sonnet-4", &["claude sonnet 4", "claude 4 sonnet", "claude 4 5 sonnet"]),
    ("claude-haiku-4", &["claude haiku 4", "claude 4 haiku", "claude 4 5 haiku"]),
    ("claude-2", &["claude 2", "claude v2"]),
    ("claude-other", &["claude"]),
    ("gemini-3", &["gemini 3"]),
    ("gemini-2.5-pro", &["gemini 2 5 pro"]),
    ("gemini-2.5-flash", &["gemini 2 5 flash"]),
    ("gemini-2", &["gemini 2"]),
    ("gemini-1.5-pro", &["gemini 1 5 pro"]),
    ("gemini-1.5-flash", &["gemini 1 5 flash"]),
    ("gemini-pro", &["gemini pro"]),
    ("gemini-other", &["gemini"]),
    ("codellama", &["codellama", "code llama"]),
    ("llama-4", &["llama 4", "llama4"]),
    ("llama-3", &["llama 3", "llama3"]),
    ("llama-2", &["llama 2", "llama2"]),
    ("llama-other", &["llama"]),
    ("mixtral", &["mixtral"]),
    ("mistral", &["mistral", "ministral", "codestral", "magistral", "devstral"]),
    ("deepseek", &["deepseek"]),
    ("qwen", &["qwen", "qwen2", "qwen3", "qwq"]),
    ("grok", &["grok"]),
    ("command", &["command r", "command a", "c4ai"]),
];

/// Every label, in the order of the rules.
pub const LABELS: &[&str] = &{
    let mut labels = [OTHER; RULES.len() + 1];
    let mut at = 0;
    while at < RULES.len() {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            labels[at] = RULES[at].0;
        }
        at += 1;
    }
    labels
};

/// Longer names are cut: what tells the family stands in front.
const MAX_BYTES: usize = 256;

/// The label of a model; `None` when nothing was named.
pub fn label(name: &str) -> Option<&'static str> {
    let name = name.trim();
    if name.is_empty() {
        return None;
    }
    let words = words(name);
    let fits = |alternative: &&str| words.contains(&format!(" {alternative} "));
    let rule = RULES.iter().find(|(_, alternatives)| alternatives.iter().any(fits));
    Some(rule.map_or(OTHER, |(label, _)| label))
}

/// The words of a name in lower case, with a blank around each.
fn words(name: &str) -> String {
    let cut = (0..=name.len().min(MAX_BYTES)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    let mut words = String::from(" ");
    for word in name.get(..cut).unwrap_or_default().split(|c: char| !c.is_ascii_alphanumeric()) {
        if !word.is_empty() {
            words.push_str(&word.to_ascii_lowercase());
            words.push(' ');
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_in_the_field_have_the_label_of_their_family() {
        for (name, expected) in [
            ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
            ("GPT-4o", "gpt-4o"),
            ("chatgpt-4o-latest", "gpt-4o"),
            ("gpt-4-0613", "gpt-4"),
            ("gpt-4-32k", "gpt-4"),
            ("gpt-4-1106-preview", "gpt-4-turbo"),
            ("gpt-4-turbo-2024-04-09", "gpt-4-turbo"),
            ("gpt-4.1-2025-04-14", "gpt-4.1"),
            ("gpt-4.1-nano", "gpt-4.1-mini"),
            ("gpt-35-turbo", "gpt-3.5-turbo"),
            ("gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
            ("gpt-3.5", "gpt-3.5"),
            ("azure/gpt-5-mini", "gpt-5-mini"),
            ("gpt-5.1", "gpt-5"),
            ("o1-2024-12-17", "o1"),
            ("o1-preview-2024-09-12", "o1-preview"),
            ("o3-mini-high", "o3-mini"),
            ("o3", "o3"),
            ("o4-mini-2025-04-16", "o4-mini"),
            ("claude-3-5-sonnet-20241022", "claude-3.5-sonnet"),
            ("claude-3.5-sonnet", "claude-3.5-sonnet"),
            ("us.anthropic.claude-3-5-haiku-20241022-v1:0", "claude-3.5-haiku"),
            ("claude-3-7-sonnet-latest", "claude-3.7-sonnet"),
            ("claude-3-opus-20240229", "claude-3-opus"),
            ("claude-sonnet-4-20250514", "claude-sonnet-4"),
            ("claude-opus-4-1@20250805", "claude-opus-4"),
            ("claude-haiku-4-5", "claude-haiku-4"),
            ("anthropic.claude-v2:1", "claude-2"),
            ("claude-instant-1.2", "claude-other"),
            ("models/gemini-2.5-pro", "gemini-2.5-pro"),
            ("gemini-2.0-flash-001", "gemini-2"),
            ("gemini-1.5-flash-8b", "gemini-1.5-flash"),
            ("gemini-pro", "gemini-pro"),
            ("gemini-ultra", "gemini-other"),
            ("CodeLlama-34b", "codellama"),
            ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3"),
            ("llama3:8b", "llama-3"),
            ("llama-2-13b-chat", "llama-2"),
            ("open-mixtral-8x7b", "mixtral"),
            ("mistral-large-latest", "mistral"),
            ("deepseek-r1", "deepseek"),
            ("qwen3:32b", "qwen"),
            ("our-own-model", "other"),
            ("ftgpt-4ox", "other"),
            ("…", "other"),
        ] {
            assert_eq!(label(name), Some(expected), "{name}");
        }
        assert_eq!((label(""), label("  \t")), (None, None));
    }

    #[test]
    fn labels_are_distinct_and_each_label_is_its_own() {
        assert_eq!(LABELS.iter().collect::<BTreeSet<_>>().len(), LABELS.len());
        assert_eq!(LABELS.len(), RULES.len() + 1);
        for known in LABELS.iter().filter(|known| !known.ends_with("other")) {
            // `command` alone would be any command.
            assert!(*known == "command" || label(known) == Some(known), "{known}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_model_is_called_it_has_a_label_of_the_closed_set(name in "\\PC{0,300}") {
            if let Some(label) = label(&name) {
                prop_assert!(LABELS.contains(&label));
            }
        }
    }
}
