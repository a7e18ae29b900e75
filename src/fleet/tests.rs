use super::*;
use std::time::Duration;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn progress(seen: u64, sent: u64, acked: u64) -> Progress {
    Progress { seen, sent, acked }
}

#[test]
fn timings_are_of_streams_that_were_there() {
    let fleet = Fleet::new();
    let connection = fleet.connect(Protocol::Delta, None, at(0));
    connection.identify("a", "edge", "envoy 1.40.0".into());
    let types = || Default::default();
    connection.on_progress(progress(3, 3, 3), types(), at(1));
    connection.on_progress(progress(5, 5, 3), types(), at(2));
    connection.on_progress(progress(5, 2, 2), types(), at(3));
    connection.on_progress(progress(6, 5, 5), types(), at(4));
    let timing = |sent, acked| vec![Timing { stream: 1, id: "a".into(), sent, acked }];
    assert_eq!(fleet.timings(3), []);
    assert_eq!(fleet.timings(4), timing(Some(at(2)), Some(at(4))));
    assert_eq!(fleet.timings(6), timing(None, None));
    drop(connection);
    assert_eq!(fleet.timings(4), []);
}

#[test]
fn marks_are_bounded_and_say_what_they_forgot() {
    let mut marks = Marks::default();
    for i in 1..=MARKS as u64 + 2 {
        marks.advance(i * 2, at(i));
    }
    assert_eq!((marks.marks.len(), marks.forgotten), (MARKS, 4));
    assert_eq!(marks.when(5), Some(at(3)));
}

#[test]
fn rejections_last_until_the_last_stream_settles_or_leaves() {
    let fleet = Fleet::new();
    let rejections = fleet.rejections();
    let streams = [(); 2].map(|()| fleet.connect(Protocol::Delta, None, at(0)));
    let key: (TypeUrl, Arc<str>) = (TypeUrl::Cluster, "c".into());
    let rejected =
        Event::Rejected { type_url: key.0, name: key.1.clone(), version: Version(1), message: "no".into() };
    for stream in &streams {
        stream.on_event(&rejected, at(1));
    }
    assert_eq!(rejections.borrow().get(&key).map(|r| r.streams.len()), Some(2));
    assert_eq!(fleet.nodes()[0].rejected.len(), 1);
    streams[0].on_event(&Event::Settled { type_url: key.0, name: key.1.clone() }, at(2));
    assert_eq!(rejections.borrow().get(&key).map(|r| r.streams.clone()), Some(imbl::ordset![2]));
    assert!(fleet.nodes()[0].rejected.is_empty());
    drop(streams);
    assert!(rejections.borrow().is_empty() && fleet.is_empty());
}

#[test]
fn only_what_is_said_of_rejections_is_a_change() {
    let fleet = Fleet::new();
    let rejections = fleet.rejections();
    let streams = [(); 2].map(|()| fleet.connect(Protocol::Delta, None, at(0)));
    let mut known = Rejections::new();
    let mut told = || {
        let now = rejections.borrow().clone();
        let of = |(_, name, message): (TypeUrl, &str, Option<&str>)| {
            format!("{name} {}", message.unwrap_or_default())
        };
        let told: Vec<String> = changes(&known, &now).map(of).collect();
        known = now;
        told
    };
    let reject = |stream: usize, name: &str, message: &str| {
        let (type_url, message) = (TypeUrl::Cluster, message.to_owned());
        let rejected = Event::Rejected { type_url, name: name.into(), version: Version(1), message };
        streams[stream].on_event(&rejected, at(1));
    };
    reject(0, "c", "no");
    reject(0, "d", "no");
    assert_eq!(told(), ["c no", "d no"]);
    reject(1, "c", "no");
    assert_eq!(told(), [""; 0]);
    reject(1, "c", "never");
    reject(1, "e", "no");
    assert_eq!(told(), ["c never", "e no"]);
    streams[0].on_event(&Event::Settled { type_url: TypeUrl::Cluster, name: "d".into() }, at(2));
    assert_eq!(told(), ["d "]);
}

#[test]
fn reports_are_readable() {
    let fleet = Fleet::new();
    let connection = fleet.connect(Protocol::Sotw, None, at(0));
    connection.on_version(TypeUrl::Cluster, "5");
    connection.on_response(TypeUrl::Cluster, ResponseSize { resources: 2, removed: 0, bytes: 9 }, at(1));
    let report = serde_json::to_value(fleet.nodes()).unwrap();
    assert_eq!(report[0]["connected"], "1970-01-01T00:00:00Z");
    assert_eq!(report[0]["protocol"], "sotw");
    assert_eq!(report[0]["types"]["Cluster"]["resources"], 2);
    assert_eq!(report[0]["types"]["Cluster"]["sent_version"], "5");
    assert_eq!(report[0]["types"]["Cluster"]["in_flight_since"], "1970-01-01T00:00:01Z");
}
