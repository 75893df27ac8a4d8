//! What applications ask of the node: the filters that are wanted here, and the other nodes.

use std::collections::HashMap;

use nexusd_core::inspection::{Entries, FilterEntry, LinkEntry, Subject};
use nexusd_core::io::clock;
use nexusd_grpc::Filters;
use nexusd_grpc::proto::PeerInfo;

use super::{Admin, FILTER_BYTES, entries};
use crate::inspector::{Listed, Listing, Unanswered};
use crate::mesh::PeerPicture;

/// Filters that are told at a time.
const FILTERS_MAX: usize = 100_000;
/// Filters of another node that are told.
const FILTERS_OF_PEER_MAX: usize = 1_000;

impl Admin {
    /// The filters that are subscribed to, over all shards.
    pub(crate) async fn filters(&self) -> Result<Filters, Unanswered> {
        let of_page = |_, page| match page {
            Entries::Filters(filters) => filters,
            _ => Vec::new(),
        };
        let weigh = async |_: &Listing<'_>, page: Vec<FilterEntry>| {
            let weight = page.iter().map(|entry| entry.filter.len() + FILTER_BYTES).sum();
            Ok((page, weight))
        };
        let Listed { entries, is_truncated } =
            self.inspector.list(Subject::Filters, FILTERS_MAX, of_page, weigh).await?;
        let mut subscriptions = HashMap::new();
        for entry in entries {
            *subscriptions.entry(entry.filter.into_string()).or_default() += entry.subscriptions;
        }
        Ok(Filters { subscriptions, is_truncated })
    }

    /// The other nodes; with hashes and filters if `with_state`.
    pub(crate) async fn peers_of_applications(
        &self,
        with_state: bool,
    ) -> Result<Vec<PeerInfo>, Unanswered> {
        let Some(mesh) = self.inspector.mesh().await? else { return Ok(Vec::new()) };
        let mut links = self.links().await?;
        if with_state {
            let named = self.links_with(FILTERS_OF_PEER_MAX).await?;
            let known = named.into_iter().filter(|(peer, _)| links.contains_key(peer));
            links.extend(known.collect::<Vec<_>>());
        }
        let now_us = clock::now().wall_us;
        let peer = |peer: &PeerPicture| {
            let link = links.remove(&peer.node);
            let mut info = self.peer_info(peer, link.as_ref(), now_us);
            if with_state {
                info.topic_state_hash = peer.told_hash.or(peer.known_hash).unwrap_or(0);
                let named = link.map(|link| link.named).unwrap_or_default();
                info.topics = named.into_iter().map(String::from).collect();
                info.topics_truncated = info.topics.len() < info.topics_count as usize;
            }
            info
        };
        Ok(mesh.peers.iter().map(peer).collect())
    }

    fn peer_info(&self, peer: &PeerPicture, link: Option<&LinkEntry>, now_us: u64) -> PeerInfo {
        PeerInfo {
            instance_uuid: peer.node.to_string(),
            endpoint: entries::app_address(peer).unwrap_or(peer.address).to_string(),
            last_seen_ms: entries::last_seen_ms(peer, link, now_us),
            cluster_id: self.settings.cluster(),
            status: entries::status(peer).to_owned(),
            topics_count: link.map_or(0, |link| u32::try_from(link.filters).unwrap_or(u32::MAX)),
            ..PeerInfo::default()
        }
    }
}
