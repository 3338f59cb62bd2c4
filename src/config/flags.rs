//! The command line's flags for settings, made from the table.

use std::{collections::HashSet, fmt::Write as _, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{
    error::Gather,
    node::{Data, Node, Place},
    settings::Settings,
    table::{Described, Role, Section},
};

/// Settings given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// The settings given, in the order of the table.
    pub given: Vec<Given>,
}

/// One setting given by its flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The setting's key.
    pub key: &'static str,
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// Its values, in order.
    pub values: Vec<String>,
}

impl Flags {
    /// The command with `--config` and the flags of these roles. Of two settings that share a flag the first is described.
    pub fn augment(roles: &[Role], command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Configuration file (YAML); flags win over it");
        let mut seen = HashSet::new();
        let flags = Settings::described().into_iter().filter(|row| {
            let meant = roles.iter().any(|role| row.setting.is_for(*role));
            meant && row.setting.flag.is_some_and(|flag| seen.insert(flag.name))
        });
        command.arg(config).args(flags.filter_map(|row| arg(&row)))
    }

    /// The flags given.
    pub fn from_matches(role: Role, matches: &ArgMatches) -> Self {
        let mut given = Vec::new();
        for row in Settings::rows().iter().filter(|row| row.setting.is_for(role)) {
            let Some(flag) = row.setting.flag else { continue };
            if let Some(values) = matches.get_many::<String>(flag.name) {
                given.push(Given { key: row.setting.key, flag: flag.name, values: values.cloned().collect() });
            }
        }
        Self { file: matches.get_one::<PathBuf>("config").cloned(), given }
    }

    /// Puts them over `settings`.
    pub(super) fn apply(&self, settings: &mut Settings, role: Role, errors: &mut Gather) -> Vec<(&'static str, Place)> {
        let mut places = Vec::new();
        for Given { key, flag, values } in &self.given {
            let row = Settings::rows().iter().find(|row| row.setting.key == *key && row.setting.is_for(role));
            let Some(row) = row else { continue };
            let place = Place::Flag(flag);
            let mut nodes: Vec<Node> = values.iter().map(|value| Node::text(place, value)).collect();
            let node = match nodes.pop() {
                Some(last) if !row.many => last,
                last => Node { place, data: Data::List(nodes.into_iter().chain(last).collect()) },
            };
            (row.read)(settings, &node, key, row.setting.bounds, errors);
            places.push((*key, place));
        }
        places
    }
}

fn arg(row: &Described) -> Option<Arg> {
    let flag = row.setting.flag?;
    let mut help = row.doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "");
    let default = row.setting.default.trim_matches(['[', ']']);
    if !matches!(default, "" | "none") {
        let _ = write!(help, " [default: {default}]");
    }
    let arg = Arg::new(flag.name)
        .long(flag.name.trim_start_matches("--"))
        .value_name(flag.value)
        .help(help)
        .action(if row.many { ArgAction::Append } else { ArgAction::Set });
    Some(if row.many { arg.value_delimiter(',') } else { arg })
}

macro_rules! role_flags {
    ($(#[$doc:meta])* $name:ident, $role:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub Flags);

        impl clap::FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(Flags::from_matches($role, matches)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = Flags::from_matches($role, matches);
                Ok(())
            }
        }

        impl clap::Args for $name {
            fn augment_args(command: Command) -> Command {
                Flags::augment(&[$role], command)
            }

            fn augment_args_for_update(command: Command) -> Command {
                Flags::augment(&[$role], command)
            }
        }
    };
}

role_flags! {
    /// The flags of `holdfast agent`.
    AgentFlags, Role::Agent
}

role_flags! {
    /// The flags of `holdfast hub`.
    HubFlags, Role::Hub
}

/// A role and its flags, for `holdfast check-config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleFlags {
    /// Whose configuration it is.
    pub role: Role,
    /// The flags of that role.
    pub flags: Flags,
}

impl RoleFlags {
    fn read(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let hub = matches.get_one::<String>("role").is_some_and(|role| role == Role::Hub.as_str());
        let (role, other) = if hub { (Role::Hub, Role::Agent) } else { (Role::Agent, Role::Hub) };
        let flags = Flags::from_matches(role, matches);
        let own = |name: &str| flags.given.iter().any(|given| given.flag == name);
        if let Some(foreign) = Flags::from_matches(other, matches).given.iter().find(|given| !own(given.flag)) {
            let message = format!("{} is no flag of `holdfast {}`\n", foreign.flag, role.as_str());
            return Err(clap::Error::raw(clap::error::ErrorKind::UnknownArgument, message));
        }
        Ok(Self { role, flags })
    }
}

impl clap::FromArgMatches for RoleFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::read(matches)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::read(matches)?;
        Ok(())
    }
}

impl clap::Args for RoleFlags {
    fn augment_args(command: Command) -> Command {
        let role = Arg::new("role")
            .long("role")
            .value_name("ROLE")
            .value_parser([Role::Agent.as_str(), Role::Hub.as_str()])
            .default_value(Role::Agent.as_str())
            .help("Whose configuration it is");
        Flags::augment(&[Role::Agent, Role::Hub], command.arg(role))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
