//! What the tests share: clusters as text, scripted peers, short ways to ask.

pub mod apiserver;
pub mod ask;
pub mod certificate;
pub mod cluster;
pub mod command;
pub mod dns;
pub mod fleet;
pub mod http;
pub mod netns;
pub mod node;
pub mod oracle;
pub mod process;
pub mod real;
pub mod synthetic;
pub mod unharmed;
pub mod upstream;
pub mod weather;
