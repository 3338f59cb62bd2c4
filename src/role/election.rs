//! The election of a leader among the hubs of one cluster: the holder of the lease watches the apiserver, the others follow it.

use std::{collections::BTreeSet, sync::Arc};

use futures::FutureExt as _;
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, warn};

use super::{
    base::{Base, Voter},
    feed::Order,
    source::{Hubs, PreparedSource},
};
use crate::{
    source::{
        Learnt,
        apiserver::{
            self,
            lease::{self, AskOthers, Candidate, Fence, Standing},
        },
        hub::{self, Asks},
    },
    stream::Beside,
};

/// An election this process stands in. Ends when dropped, the lease with it when its time is up.
#[derive(Debug)]
pub(super) struct Election {
    pub status: watch::Receiver<lease::Status>,
    end: CancellationToken,
    standing_for: AbortOnDropHandle<()>,
    obeying: AbortOnDropHandle<()>,
}

impl Election {
    /// Stands for election; the result decides which source `base` follows.
    ///
    /// `beside` are the hubs the stream has heard of.
    pub(super) fn begin(base: &mut Base, lease: &str, config: apiserver::Config, beside: Beside) -> Option<Self> {
        let follow = base.config.follow(&base.name);
        if follow.serves.is_empty() {
            warn!("agents cannot learn this hub's address: set --advertise HOST:PORT, or POD_IP in its environment");
        }
        let candidate = Candidate {
            duration: base.config.settings.lease_duration,
            look: base.config.settings.lease_duration.mul_f64(2.0 / 15.0),
            hub: lease::identity(base.config.settings.store_path.as_deref()),
            ..Candidate::new(lease, &base.name, &follow.serves)
        };
        let hubs = Hubs {
            config: follow,
            certificates: base.config.certificates(),
            store: base.config.settings.store_path.clone(),
        };
        let others = others(base, &hubs, beside);
        let voter = base.elect(PreparedSource::Apiserver(config.clone()))?;
        let parts =
            lease::Parts { reader: base.reader.clone(), clock: base.clock.clone(), metrics: base.feed.metrics.clone() };
        let (asked, asks) = watch::channel(config);
        let election = lease::Election::new(asks, candidate, parts).asking(others);
        let (status, fence) = (election.status(), election.fence());
        let end = CancellationToken::new();
        let standing_for = AbortOnDropHandle::new(tokio::spawn(election.run(end.clone())));
        let obeying = AbortOnDropHandle::new(tokio::spawn(obey(status.clone(), fence, voter, hubs, asked)));
        Some(Self { status, end, standing_for, obeying })
    }

    /// Releases the lease for the next leader.
    pub(super) async fn leave(self) {
        self.obeying.abort();
        self.end.cancel();
        if let Err(error) = self.standing_for.await {
            error!(%error, "the leader election stopped: restart this hub");
        }
    }
}

/// How all hubs that are known are asked: those that followed this one or asked it, those it followed or learnt of, and
/// their Service.
fn others(base: &Base, hubs: &Hubs, beside: Beside) -> AskOthers {
    let (feed, hubs, service) = (base.feed.clone(), hubs.clone(), base.config.hubs.clone());
    Arc::new(move |leader| {
        let (feed, hubs, service, beside) = (feed.clone(), hubs.clone(), service.clone(), beside.clone());
        async move {
            let mut addresses: BTreeSet<String> = beside.addresses().into_iter().collect();
            addresses.extend(feed.status.borrow().hubs.iter().cloned());
            addresses.extend(hubs.store.as_deref().into_iter().flat_map(|store| Learnt::in_store(store).known));
            addresses.extend(service.map(|service| service.to_string()));
            addresses.extend(leader.filter(|leader| !leader.is_empty()));
            addresses.remove(&hubs.config.serves);
            if addresses.is_empty() {
                return Vec::new();
            }
            let tls = match hubs.certificates {
                None => None,
                // Read each time: this is rare, and the files change.
                Some(directory) => match feed.certificates(directory) {
                    Ok(fresh) => Some(fresh),
                    Err(error) => {
                        warn!(%error, "cannot ask the other hubs");
                        return Vec::new();
                    }
                },
            };
            let who = Asks { node: hubs.config.node, serves: hubs.config.serves };
            hub::ask_all(hub::dial(tls), who, feed.clock.now(), addresses.into_iter().collect()).await
        }
        .boxed()
    })
}

/// Follows the result of the election, and a new configuration.
///
/// `asked` is told which apiserver the lease is to be looked at.
async fn obey(
    mut status: watch::Receiver<lease::Status>,
    fence: Fence,
    mut voter: Voter,
    hubs: Hubs,
    asked: watch::Sender<apiserver::Config>,
) {
    if voter.orders.send(Order::Fence(fence)).await.is_err() {
        return;
    }
    // The cluster is listed while the lease is taken.
    let mut listing = false;
    loop {
        let own = voter.own.borrow_and_update().clone();
        let (now, taking) = {
            let status = status.borrow_and_update();
            (status.standing.clone(), status.taking)
        };
        let already = std::mem::replace(&mut listing, taking && now == Standing::Unknown);
        let source = match &now {
            Standing::Unknown if taking => own,
            Standing::Unknown | Standing::Namesake { .. } => alone(&hubs),
            Standing::Holder { epoch } => {
                let (done, ordered) = oneshot::channel();
                if voter.orders.send(Order::Lead { epoch: *epoch, listing: already, done }).await.is_err()
                    || ordered.await.is_err()
                {
                    return;
                }
                own
            }
            Standing::Follower { address, .. } if address.is_empty() => alone(&hubs),
            Standing::Follower { address, .. } => {
                let mut hubs = hubs.clone();
                hubs.config.addresses = vec![address.clone()];
                PreparedSource::Hub(hubs)
            }
        };
        let goes_on = already && (listing || matches!(now, Standing::Holder { .. }));
        if !goes_on && voter.switch.send(source).await.is_err() {
            return;
        }
        let news = |status: &lease::Status| status.standing != now || status.taking != taking;
        tokio::select! {
            changed = status.wait_for(news) => if changed.is_err() { return },
            changed = voter.own.changed() => {
                if changed.is_err() {
                    return;
                }
                listing = false;
                if let PreparedSource::Apiserver(config) = &*voter.own.borrow() {
                    asked.send_replace(config.clone());
                }
            }
        }
    }
}

/// The hubs known from before, if there are any, while the leader is not known.
fn alone(hubs: &Hubs) -> PreparedSource {
    let learnt = hubs.store.as_deref().is_some_and(|store| !Learnt::in_store(store).known.is_empty());
    if learnt { PreparedSource::Hub(hubs.clone()) } else { PreparedSource::None }
}
