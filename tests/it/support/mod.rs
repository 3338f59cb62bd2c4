//! What the tests share: scripted peers and short ways to ask.

pub mod upstream;
