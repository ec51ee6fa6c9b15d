//! Offsets of the fields the programs read, from the running kernel's own type information.
//!
//! Input: the bytes of `/sys/kernel/btf/vmlinux`. Output: a [`Layout`] and the names of the fields this kernel does not
//! have, by who needs them. No IO. Deliberately absent: any default offset; a field that is not found disables a probe.

use leyline_abi::{ABI_VERSION, Layout};

use super::btf::{Btf, BtfError};

/// Which programs need a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// `tcp_state`, `sockets`, `totals`.
    Tcp,
    /// `sockets` only.
    Sockets,
    /// The UDP programs.
    Udp,
    /// `cgroup_mkdir`, `cgroup_rmdir`.
    Cgroups,
    /// All of them.
    All,
}

impl Needs {
    /// Whether a program of kind `program` needs a field marked `self`.
    pub(super) fn includes(self, program: Self) -> bool {
        self == Self::All
            || self == program
            || (self == Self::Tcp && matches!(program, Self::Sockets | Self::Udp))
    }
}

/// The layout, as far as it could be resolved.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    pub(super) layout: Layout,
    /// (who needs it, `struct.field`).
    pub(super) missing: Vec<(Needs, String)>,
    /// Whether the kernel can tell how long each datagram is.
    pub(super) has_datagram_lengths: bool,
}

type Field = (Needs, &'static str, &'static str, fn(&mut Layout) -> &mut u32);

const FIELDS: &[Field] = &[
    (Needs::Tcp, "sock", "__sk_common.skc_family", |l| {
        &mut l.sock_family
    }),
    (Needs::Tcp, "sock", "__sk_common.skc_state", |l| &mut l.sock_state),
    (Needs::Tcp, "sock", "__sk_common.skc_num", |l| &mut l.sock_num),
    (Needs::Tcp, "sock", "__sk_common.skc_dport", |l| &mut l.sock_dport),
    (Needs::Tcp, "sock", "__sk_common.skc_daddr", |l| &mut l.sock_daddr),
    (Needs::Tcp, "sock", "__sk_common.skc_rcv_saddr", |l| {
        &mut l.sock_rcv_saddr
    }),
    (Needs::Tcp, "sock", "__sk_common.skc_v6_daddr", |l| {
        &mut l.sock_v6_daddr
    }),
    (Needs::Tcp, "sock", "__sk_common.skc_v6_rcv_saddr", |l| {
        &mut l.sock_v6_rcv_saddr
    }),
    (Needs::Tcp, "sock", "__sk_common.skc_net.net", |l| &mut l.sock_net),
    (Needs::Tcp, "sock", "__sk_common.skc_flags", |l| &mut l.sock_flags),
    (Needs::Tcp, "sock", "sk_protocol", |l| &mut l.sock_protocol),
    (Needs::Tcp, "sock", "sk_err", |l| &mut l.sock_err),
    (Needs::Tcp, "sock", "sk_err_soft", |l| &mut l.sock_err_soft),
    (Needs::Sockets, "sock", "sk_max_ack_backlog", |l| {
        &mut l.sock_max_ack_backlog
    }),
    (Needs::Tcp, "net", "ns.inum", |l| &mut l.net_inum),
    (Needs::All, "cgroup", "kn", |l| &mut l.cgroup_kn),
    (Needs::Cgroups, "cgroup", "root", |l| &mut l.cgroup_root),
    (Needs::Cgroups, "cgroup_root", "hierarchy_id", |l| {
        &mut l.cgroup_root_hierarchy_id
    }),
    (Needs::All, "kernfs_node", "id", |l| &mut l.kernfs_node_id),
    (Needs::Tcp, "inet_sock", "inet_sport", |l| &mut l.inet_sport),
    (Needs::Tcp, "tcp_sock", "snd_una", |l| &mut l.tcp_snd_una),
    (Needs::Tcp, "tcp_sock", "write_seq", |l| &mut l.tcp_write_seq),
    (Needs::Tcp, "tcp_sock", "rcv_nxt", |l| &mut l.tcp_rcv_nxt),
    (Needs::Tcp, "tcp_sock", "bytes_acked", |l| &mut l.tcp_bytes_acked),
    (Needs::Tcp, "tcp_sock", "bytes_received", |l| {
        &mut l.tcp_bytes_received
    }),
    (Needs::Tcp, "tcp_sock", "srtt_us", |l| &mut l.tcp_srtt_us),
    (Needs::Tcp, "tcp_sock", "total_retrans", |l| {
        &mut l.tcp_total_retrans
    }),
    (Needs::Sockets, "task_struct", "tgid", |l| &mut l.task_tgid),
    (Needs::Sockets, "task_struct", "comm", |l| &mut l.task_comm),
    (Needs::Sockets, "socket", "sk", |l| &mut l.socket_sk),
];

/// Resolves every field; the error is the parser's.
pub(super) fn resolve(bytes: &[u8]) -> Result<Offsets, BtfError> {
    let btf = Btf::parse(bytes)?;
    let mut offsets = Offsets::default();
    offsets.layout.abi_version = ABI_VERSION;
    for &(needs, of, path, place) in FIELDS {
        match btf.offset(of, path) {
            Some(found) => *place(&mut offsets.layout) = found,
            None => offsets.missing.push((needs, format!("struct {of}: {path}"))),
        }
    }
    cgroup(&btf, &mut offsets);
    error_queue(&btf, &mut offsets.layout);
    offsets.has_datagram_lengths =
        btf.has_tracepoint("sock_send_length") && btf.has_tracepoint("sock_recv_length");
    match btf.bit_offset("sock", "sk_userlocks") {
        Some(bit) => offsets.layout.sock_userlocks_bit = bit,
        None => offsets
            .missing
            .push((Needs::Udp, "struct sock: sk_userlocks".to_owned())),
    }
    match btf.enumerator("sock_flags", "SOCK_DONE") {
        Some(bit) => offsets.layout.sock_done_bit = bit,
        None => offsets
            .missing
            .push((Needs::Tcp, "enum sock_flags: SOCK_DONE".to_owned())),
    }
    Ok(offsets)
}

/// All four or none: what refused a connection can be told without them, except to an application that reads the error.
fn error_queue(btf: &Btf<'_>, layout: &mut Layout) {
    let places = (
        btf.offset("sock", "sk_error_queue.next"),
        btf.offset("sock", "sk_error_queue.qlen"),
        btf.offset("sk_buff", "cb"),
        btf.offset("sock_exterr_skb", "ee.ee_errno"),
    );
    if let (Some(queue), Some(len), Some(cb), Some(errno)) = places {
        layout.sock_error_queue = queue;
        layout.sock_error_queue_len = len;
        layout.skb_cb = cb;
        layout.exterr_errno = errno;
    }
}

/// Linux 5.15 made the tagged integer in `sock_cgroup_data` a plain pointer.
fn cgroup(btf: &Btf<'_>, offsets: &mut Offsets) {
    let layout = &mut offsets.layout;
    if let Some(pointer) = btf.offset("sock", "sk_cgrp_data.cgroup") {
        (layout.sock_cgroup, layout.sock_cgroup_is_pointer) = (pointer, 1);
    } else if let Some(tagged) = btf.offset("sock", "sk_cgrp_data.val") {
        (layout.sock_cgroup, layout.sock_cgroup_is_pointer) = (tagged, 0);
    } else {
        offsets
            .missing
            .push((Needs::Tcp, "struct sock: sk_cgrp_data.cgroup".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_field_stops_only_the_programs_that_read_it() {
        for (field, expected) in [
            (Needs::All, [true, true, true, true]),
            (Needs::Tcp, [true, true, true, false]),
            (Needs::Sockets, [false, true, false, false]),
            (Needs::Udp, [false, false, true, false]),
            (Needs::Cgroups, [false, false, false, true]),
        ] {
            let stops = [Needs::Tcp, Needs::Sockets, Needs::Udp, Needs::Cgroups]
                .map(|program| field.includes(program));
            assert_eq!(stops, expected, "{field:?}");
        }
    }

    #[test]
    fn every_field_has_a_place_of_its_own() {
        let mut layout = Layout::default();
        for (value, &(_, of, path, place)) in (1..).zip(FIELDS) {
            let cell = place(&mut layout);
            assert_eq!(*cell, 0, "{of}.{path} shares its place");
            *cell = value;
        }
    }

    #[test]
    fn types_without_the_structs_name_every_missing_field() {
        // A header, no types, and a string section that holds the empty string.
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend([24_u32, 0, 0, 0, 1].iter().flat_map(|word| word.to_ne_bytes()));
        bytes.push(0);
        let offsets = resolve(&bytes).unwrap();
        assert_eq!(offsets.missing.len(), FIELDS.len() + 3);
        assert!(
            offsets
                .missing
                .contains(&(Needs::Tcp, "struct tcp_sock: bytes_acked".to_owned()))
        );
        assert!(
            offsets
                .missing
                .contains(&(Needs::Tcp, "enum sock_flags: SOCK_DONE".to_owned()))
        );
    }
}
