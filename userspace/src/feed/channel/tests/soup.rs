//! A channel that comes over TCP: its server's word needs no witness.
#![forbid(unsafe_code)]

use super::*;
use LineRole::Soup;

#[test]
fn another_session_begins_at_once_and_what_was_missing_is_lost_loudly() {
    let mut rig = Rig::new(settings());
    rig.data(Soup, 1, 0).unwrap();
    rig.data(Soup, 1, 4).unwrap();
    rig.data(Soup, 6, 1).unwrap();
    rig.send(Soup, &packet(&NEXT_SESSION, 1, 0)).unwrap();
    assert_eq!(rig.channel.session(), Some(NEXT_SESSION), "one packet without messages is enough");
    rig.send(Soup, &packet(&NEXT_SESSION, 1, 2)).unwrap();
    assert_eq!(rig.take(), "1-5 lost 5-6 6-7 end 7 / 1-3");
    assert_eq!(rig.data(Soup, 7, 1), Err(DropReason::OldSession), "a session that was left stays left");
}

#[test]
fn a_server_that_begins_far_ahead_is_believed_and_the_gap_is_told() {
    let mut rig = Rig::new(settings());
    let far = 1 << 40;
    rig.data(Soup, 1, 2).unwrap();
    rig.data(Soup, far, 0).unwrap();
    rig.poll(1_000);
    rig.data(Soup, far, 1).unwrap();
    assert_eq!(rig.take(), format!("1-3 lost 3-{far} {far}-{}", far + 1));
}

#[test]
fn its_heartbeats_keep_the_channel_alive_and_its_end_is_one() {
    let mut rig = Rig::new(settings());
    rig.data(Soup, 1, 2).unwrap();
    rig.poll(4_999);
    rig.data(Soup, 3, 0).unwrap();
    rig.poll(9_000);
    assert_eq!(rig.channel.state(), ChannelState::Live);
    rig.data(Soup, 3, moldudp64::END_OF_SESSION).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("1-3 end 3", ChannelState::Ended));
}

#[test]
fn a_replay_after_a_silence_is_not_a_restarted_sender() {
    let mut rig = Rig::new(settings());
    rig.data(Soup, 1, 2_000).unwrap();
    rig.data(Soup, 2_001, 1).unwrap();
    rig.poll(20_000);
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("1-2002", ChannelState::Stale));
    rig.now_ns = 20_001;
    rig.data(Soup, 1, 0).unwrap();
    for sequence in (1..=2_001).step_by(3) {
        assert_eq!(rig.data(Soup, sequence, 3).err(), Some(DropReason::Duplicate), "{sequence}");
    }
    rig.data(Soup, 2_002, 2).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.counts().restarts), ("2002-2004", 0));
}
