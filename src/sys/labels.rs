//! Enums that are one of a few words, as metrics, settings and status spell them.

/// Makes an enum with `ALL` (every variant, in the order of the discriminants), `WORDS` (their words, with commas between), `as_str`, and
/// `FromStr`, its inverse.
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $(#[$first_doc:meta])* $first:ident = $first_word:literal
        $(, $(#[$doc:meta])* $variant:ident = $word:literal)* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $(#[$first_doc])* $first $(, $(#[$doc])* $variant)* }

        #[allow(dead_code, reason = "one macro makes these for every enum; some enums need only some of them")]
        impl $name {
            $vis const ALL: [Self; [$first_word $(, $word)*].len()] = [Self::$first $(, Self::$variant)*];
            $vis const WORDS: &'static str = concat!($first_word $(, ", ", $word)*);

            $vis const fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $(Self::$variant => $word),*
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let known = Self::ALL.into_iter().find(|label| label.as_str() == word);
                known.ok_or_else(|| format!("{word:?} is not one of {}", Self::WORDS))
            }
        }
    };
}

pub(crate) use labels;
