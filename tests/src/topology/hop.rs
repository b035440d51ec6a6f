//! Hosts one hop further away than the topology's own, for what routers on the way have to say.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::wiring::{add_address, connect, families, namespace};
use super::{Backend, Topology, TopologySpec, addresses};
use crate::netns::Netns;
use crate::topology::Family;

/// A router's interface towards the host behind it, which is `eth0` there.
pub const BEHIND: &str = "behind0";

/// Address of the client that [`Topology::far_client`] makes.
#[must_use]
pub fn far_client(family: Family) -> IpAddr {
    addresses::behind_client(family, 2)
}

impl Topology {
    /// A client one hop further away, at [`far_client`]; the topology's own becomes the router on
    /// the way to it, also for replies that bypass the balancer.
    ///
    /// # Errors
    /// As [`Topology::new`].
    pub fn far_client(&self) -> Result<Netns> {
        let (spec, router) = (&self.spec, &self.client);
        let far = behind(spec, router, addresses::behind_client)?;
        for family in families(spec) {
            let to = format!("{}/{}", far_client(family), family.host_prefix());
            let via = addresses::client(family, 0);
            self.lb.namespace.ip(&format!("route add {to} via {via}"))?;
            if spec.mode.is_one_way() {
                for (index, backend) in (1..).zip(&self.backends) {
                    let via = addresses::direct(family, index, 1);
                    backend.namespace.ip(&format!("route add {to} via {via}"))?;
                }
            }
        }
        Ok(far)
    }

    /// Moves a backend, by its place in [`Topology::backends`], one hop further away, before its
    /// server is started and the configuration made. Returns where it was: now the router on the
    /// way to it. For modes `nat` and `snat`.
    ///
    /// # Errors
    /// As [`Topology::new`].
    pub fn move_away(&mut self, place: usize) -> Result<Arc<Netns>> {
        let index = u8::try_from(place + 1)?;
        let at = |family, end| addresses::behind_backend(family, index, end);
        let backend = self.backends.get_mut(place).context("no such backend")?;
        let far = behind(&self.spec, &backend.namespace, at)?;
        for family in families(&self.spec) {
            let to = format!("{}/{}", at(family, 2), family.host_prefix());
            let via = addresses::backend(family, index);
            self.lb.namespace.ip(&format!("route add {to} via {via}"))?;
        }
        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (at(Family::V4, 2), at(Family::V6, 2)) else {
            bail!("addresses of the wrong family");
        };
        backend.address = SocketAddrV4::new(v4, backend.address.port());
        backend.address6 = SocketAddrV6::new(v6, backend.address6.port(), 0, 0);
        backend.serves = families(&self.spec).into_iter().map(|f| backend.instance(f)).collect();
        Ok(std::mem::replace(&mut backend.namespace, Arc::new(far)))
    }
}

impl Backend {
    /// Where its server listens in a family.
    ///
    /// # Errors
    /// Nowhere.
    pub fn serves_in(&self, family: Family) -> Result<SocketAddr> {
        let mine = |address: &&SocketAddr| address.is_ipv4() == (family == Family::V4);
        self.serves.iter().find(mine).copied().with_context(|| format!("{} has none", self.id))
    }
}

/// A host behind a router, which has end 1 of the addresses and the host end 2.
fn behind(spec: &TopologySpec, router: &Netns, at: impl Fn(Family, u8) -> IpAddr) -> Result<Netns> {
    let far = namespace(spec, "rt-far")?;
    router.sysctl("ipv4/ip_forward", "1")?;
    if spec.uses_ipv6() {
        router.sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    let v4 = Family::V4;
    connect((&far, "eth0", at(v4, 2)), (router, BEHIND, at(v4, 1)), spec)?;
    for family in families(spec) {
        if family == Family::V6 {
            add_address(&far, "eth0", at(family, 2), addresses::prefix(family))?;
            add_address(router, BEHIND, at(family, 1), addresses::prefix(family))?;
        }
        far.ip(&format!("route add default via {}", at(family, 1)))?;
    }
    Ok(far)
}
