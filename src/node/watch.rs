//! The process that keeps interface and rules, and knows whether queries are answered.
//!
//! It alone keeps `CAP_NET_ADMIN`. It takes the addresses that the cluster's DNS has only once queries are answered here as well as
//! there, restores what is deleted, and gives them to the cluster's DNS while nothing answers here. One for each agent's addresses
//! in a network namespace ([`seat`]): a newcomer takes over, and the one before stays behind it, for when it ends. Never reads a
//! record; passes queries on to the cluster's DNS ([`relay`]) only while the failsafe is on.

mod about;
pub mod child;
mod event;
mod failsafe;
mod gap;
mod inputs;
mod judge;
pub mod keeper;
mod probe;
mod relay;
mod removals;
mod seat;

use std::{io, time::Duration};

use tokio::time::{Instant, interval, sleep, sleep_until};

pub use self::{
    about::{About, keepers},
    event::{Event, Order, to_line},
    inputs::Orders,
};
use self::{
    about::{Place, keeper_of},
    gap::Gap,
    inputs::Inputs,
    judge::{Patience, STARTING, Watch},
    removals::Removals,
    seat::{Claimed, LeaveReason, Seat},
};
use super::{Config, Goal, approach, is_released, reach};

/// Between two looks at whether DNS is answered.
const TICK: Duration = Duration::from_millis(500);
/// The same while the addresses wait to be taken for the first time.
const FIRST_TICK: Duration = Duration::from_millis(50);
/// Between two looks at interface and rules: deleted parts are back within 5 s.
const LOOK: Duration = Duration::from_secs(2);
/// The same after something was removed from the node, which may go on and on.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// The same where queries are steered meanwhile: a process that shares the ports and removed the interface at its end closes its sockets
/// first, and loses nothing that it would not answer any more.
const PUT_BACK: Duration = Duration::from_millis(250);
/// The time another watch may take to describe itself.
const DESCRIPTION: Duration = Duration::from_secs(1);
/// The time for answers under way to leave when an address is given away.
const ANSWERS_LEAVE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Of an agent, which started it and gives it orders by its standard input.
    Child,
    /// Its own: a unit of systemd, or a container beside the agent's. A child leaves the work to it.
    Resident,
}

/// Watches until told to end, and reports to `tell`. [`Event::Ready`] comes once the addresses are taken, or will not be soon.
///
/// # Errors
/// If the system gives no signals.
pub async fn run(config: &Config, mode: Mode, orders: Orders, mut tell: impl FnMut(Event)) -> io::Result<()> {
    let mut inputs = Inputs::new(orders, mode)?;
    // A watch that another watch displaced waits behind it.
    let mut displaced = false;
    let mut said_ready = false;
    let removals = Removals::open();
    loop {
        if !begun(config, mode, &mut inputs, &removals, &mut said_ready, &mut tell).await {
            return Ok(());
        }
        let before = keeper_of(config, DESCRIPTION).await;
        let mut seat = match seat::claim(&config.seat(), mode, displaced, || About::of(config, mode).to_json()).await {
            Claimed::Seat(seat) => seat,
            Claimed::Foreign(reason) => {
                tell(Event::Warn(format!("cannot be the only watch: {reason}")));
                Seat::none()
            }
            Claimed::Taken(held) => {
                tell(Event::KeptBy(keeper_of(config, DESCRIPTION).await.map(|about| about.keeper)));
                if !behind(config, held, &mut inputs, &mut said_ready, &mut tell).await {
                    return Ok(());
                }
                continue;
            }
        };
        if !inputs.begun(config) {
            // Removed by hand meanwhile.
            continue;
        }
        let mut about = About::of(config, mode);
        tell(Event::Keeps(about.keeper.clone()));
        let mut watch = Watch::new(config, Patience::default(), &mut tell);
        watch.judge_zone(before.map(|before| before.config)).await;
        watch.look();
        let (mut next_probe, mut next_look) = (Instant::now(), Instant::now() + LOOK);
        loop {
            if !said_ready && watch.is_settled() {
                said_ready = true;
                (watch.tell)(Event::Ready);
            }
            let place = watch.place.as_ref().and_then(Place::of);
            if about.place != place {
                about.place = place;
                seat.set_about(about.to_json());
            }
            tokio::select! {
                asked = seat.asked_to_leave() => {
                    if asked == LeaveReason::Newcomer && !inputs.orders.ended {
                        (watch.tell)(Event::Info("a newer watch takes over".into()));
                        displaced = true;
                        break;
                    }
                    (watch.tell)(Event::Left);
                    return Ok(());
                }
                order = inputs.next() => match order {
                    Some(Order::Begin) => {}
                    Some(order) => {
                        end(config, &order, &mut watch.tell).await;
                        return Ok(());
                    }
                    // The agent died without a word.
                    None if mode == Mode::Child && config.intercept_failsafe.is_some() && !inputs.orders.told_to_end => {}
                    None => {
                        if watch.has_relay() {
                            // The relay ends with this process, and the rules would lead to a closed port.
                            end(config, &Order::Release, &mut watch.tell).await;
                        }
                        return Ok(());
                    }
                },
                () = sleep_until(next_probe) => {
                    if mode == Mode::Resident && watch.is_left() {
                        break;
                    }
                    if watch.probe().await {
                        watch.look();
                    }
                    next_probe = Instant::now() + watch.pause();
                }
                () = removals.next() => {
                    let soon = (next_look - LOOK + LOOK_SOON).max(Instant::now());
                    next_look = next_look.min(if config.can_steer() { Instant::now() + PUT_BACK } else { soon });
                }
                () = sleep_until(next_look) => {
                    if mode == Mode::Resident && watch.is_left() {
                        break;
                    }
                    watch.look();
                    next_look = Instant::now() + LOOK;
                }
            }
        }
    }
}

/// Waits until the agent has its ports: before that, interface and rules are not ours to touch, another process may use them. False if
/// told to end.
async fn begun(
    config: &Config,
    mode: Mode,
    inputs: &mut Inputs,
    removals: &Removals,
    said_ready: &mut bool,
    tell: &mut impl FnMut(Event),
) -> bool {
    let mut gap = Gap::open(config);
    while !inputs.begun(config) {
        if mode == Mode::Resident && !std::mem::replace(said_ready, true) {
            tell(Event::Info("waiting for the agent to listen".into()));
            tell(Event::Ready);
        }
        tokio::select! {
            order = inputs.next() => if order != Some(Order::Begin) {
                gap.close(config);
                return false;
            },
            () = removals.next(), if mode == Mode::Child => if gap.look(config) {
                let told = "the process before has left: queries go to the cluster's DNS until the agent listens";
                tell(Event::Info(told.into()));
            },
            () = sleep(TICK), if mode == Mode::Resident => {}
        }
    }
    true
}

/// Waits behind another watch and reports for it. False if ordered to end.
async fn behind(
    config: &Config,
    mut held: seat::Held,
    inputs: &mut Inputs,
    said_ready: &mut bool,
    tell: &mut impl FnMut(Event),
) -> bool {
    let began = Instant::now();
    let (mut ticks, mut told) = (interval(FIRST_TICK), None);
    loop {
        tokio::select! {
            () = held.ended() => return true,
            order = inputs.next() => match order {
                Some(Order::Begin) => {}
                Some(order) => {
                    end(config, &order, tell).await;
                    return false;
                }
                None => return false,
            },
            _ = ticks.tick() => {
                let keeper = keeper_of(config, TICK).await;
                let place = keeper.and_then(|about| about.place).map_or_else(|| seen(config), Place::event);
                if told.as_ref() != Some(&place) && (place == Event::Taken || began.elapsed() >= STARTING) {
                    told = Some(place.clone());
                    tell(place);
                }
                if told.is_some() {
                    ticks = interval(TICK);
                    ticks.tick().await;
                    if !std::mem::replace(said_ready, true) {
                        tell(Event::Ready);
                    }
                }
            }
        }
    }
}

/// Where the addresses are, of a keeper that does not say.
fn seen(config: &Config) -> Event {
    if is_released(config) {
        Event::Waiting("the process that keeps them has not taken them".into())
    } else {
        Event::Taken
    }
}

/// Leaves the node as `order` says.
async fn end(config: &Config, order: &Order, tell: &mut impl FnMut(Event)) {
    let goal = match order {
        Order::Begin | Order::Leave => return,
        Order::Release if config.can_steer() => Goal::Steered,
        Order::Release => Goal::Released(Vec::new()),
        Order::Teardown => Goal::Gone,
        Order::Yield(kept) => Goal::Yielded(kept.clone()),
    };
    let mut errors = approach(config, &goal).errors;
    sleep(ANSWERS_LEAVE).await;
    errors.extend(reach(config, &goal).errors);
    for error in errors {
        tell(Event::Error(error.kind(), error.to_string()));
    }
}

/// Asks the watch over these addresses to end, and waits until it has: before they are removed by hand.
pub async fn dismiss(config: &Config) {
    seat::dismiss(&config.seat()).await;
}
