//! Tests of the whole: each module is one area, `support` is what they share.

mod architecture;
