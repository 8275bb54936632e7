//! Links, addresses and routes over rtnetlink: desired state against actual state
