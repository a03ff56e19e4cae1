//! Bounds on the patterns of a JSON schema.
//!
//! Servers make a grammar of the schemas in a request, and of each pattern a part of it. A short
//! pattern can cost them all their memory (`(a{1000}){1000}`) or all their time (`(((a*)*)*)*`).

use std::cell::Cell;

/// Longest pattern. Those that libraries write for addresses and dates have some hundred letters.
const LONGEST: usize = 4096;
/// Groups within groups.
const DEEPEST: usize = 32;
/// Unbounded repetitions within each other. Three are what the pattern of a semantic version has.
const NESTED: usize = 4;
/// Letters of all patterns of one request, each as often as it may be repeated.
const MOST: u64 = 200_000;

/// How much all patterns of one request may still come to.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(MOST))
    }
}

/// A part of a pattern: how many letters it comes to, and how many unbounded repetitions are in it.
#[derive(Clone, Copy, Default)]
struct Part {
    letters: u64,
    nested: usize,
}

impl Part {
    fn and(self, other: Self) -> Self {
        let letters = self.letters.saturating_add(other.letters);
        Self { letters, nested: self.nested.max(other.nested) }
    }
}

/// A group that is open: what stands in front of its last part, and that part.
#[derive(Clone, Copy, Default)]
struct Group {
    before: Part,
    last: Part,
}

impl Group {
    fn all(self) -> Part {
        self.before.and(self.last)
    }

    fn push(&mut self, part: Part) {
        *self = Self { before: self.all(), last: part };
    }
}

const NESTS: &str = "a pattern of the schema nests too many groups or repetitions; simplify it";

/// What is wrong with a pattern. What is no pattern at all is the server's to refuse.
pub fn objection(pattern: &str, budget: &Budget) -> Option<&'static str> {
    if pattern.len() > LONGEST {
        return Some("a pattern of the schema is longer than 4096 bytes; shorten it");
    }
    let letter = Part { letters: 1, nested: 0 };
    let (mut group, mut outer) = (Group::default(), Vec::new());
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        match next {
            '(' => {
                outer.push(std::mem::take(&mut group));
                if outer.len() > DEEPEST {
                    return Some(NESTS);
                }
            }
            ')' => {
                let inner = group.all();
                group = outer.pop().unwrap_or_default();
                group.push(letter.and(inner));
            }
            '*' | '+' => group.last.nested += 1,
            '?' => {}
            '{' => {
                let inner = rest.as_str().split_once('}').map_or("", |(inner, _)| inner);
                if let Some(most) = repetitions(inner) {
                    group.last.letters = group.last.letters.saturating_mul(most.max(1));
                    group.last.nested += usize::from(inner.ends_with(','));
                    rest = rest.as_str()[inner.len() + 1..].chars();
                } else {
                    group.push(letter);
                }
            }
            '[' => {
                // A bracket right after the opening is a letter to some engines; then the class
                // only seems shorter here.
                while let Some(inner) = rest.next().filter(|inner| *inner != ']') {
                    if inner == '\\' {
                        rest.next();
                    }
                }
                group.push(letter);
            }
            other => {
                if other == '\\' {
                    rest.next();
                }
                group.push(letter);
            }
        }
        if group.last.nested > NESTED {
            return Some(NESTS);
        }
    }
    let all = outer.iter().fold(group.all(), |all, outer| all.and(outer.all()));
    let Some(left) = budget.0.get().checked_sub(all.letters) else {
        return Some("the patterns of the schema repeat too much; lower their counts");
    };
    budget.0.set(left);
    None
}

/// The most repetitions of `3`, `3,`, `3,5` or `,5`; nothing for a brace that means itself.
fn repetitions(inner: &str) -> Option<u64> {
    let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if inner.is_empty() || !digits(least) || !digits(most) {
        return None;
    }
    [most, least]
        .into_iter()
        .find(|text| !text.is_empty())
        .map_or(Some(0), |text| Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pattern: &str) -> bool {
        objection(pattern, &Budget::default()).is_some()
    }

    #[test]
    fn patterns_that_people_write_pass() {
        for pattern in [
            "",
            "^[a-zA-Z0-9_-]{1,128}$",
            r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?$",
            r"^(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,7}:)$",
            r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
            r"^[\s\S]{0,65536}$",
            r"^\p{L}+\{$",
            "{",
            "a{x}{,5}{,}",
            "(((((a{400}",
            "[(((]*)",
            "*+",
        ] {
            assert!(!refused(pattern), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_grow_without_measure_are_refused() {
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        for pattern in [
            "a{1000000}",
            "a{99999999999999999999999}",
            "(a{1000}){1000}",
            "((((a{20}){20}){20}){20}){20}",
            "(?:a{0,500}b){1,500}",
            "a{500}{500}",
            "(((((a*)*)*)*)*)*",
            "(((((a+){2,}){2,}){2,})+){3,}",
            "a{,1000000}",
            &deep,
            &"a".repeat(5000),
            &"a{9000}".repeat(50),
        ] {
            assert!(refused(pattern), "{pattern}");
        }
    }
}
