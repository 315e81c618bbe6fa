//! The same through Sentinels and with a cluster.

use std::time::{Duration, Instant};

use dashstream::redis::settings::{RedisSettings, Topology};
use deadpool_redis::redis::{Value, cmd};

use crate::support::{
    PATIENCE, Process, Server, chunk, chunk_of, chunks, eventually, no_password, offsets, request, run, settings,
};

/// Three nodes that share the slots, without replicas.
fn cluster() -> Vec<Server> {
    let nodes: Vec<Server> =
        (0..3).map(|_| Server::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"])).collect();
    let bounds = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];
    for (node, (first, last)) in nodes.iter().zip(bounds) {
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        node.ask(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]);
    }
    for node in &nodes {
        eventually("the cluster to be complete", || {
            let info: String = cmd("CLUSTER").arg("INFO").query(&mut node.client()).ok()?;
            let complete = info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3");
            complete.then_some(())
        });
    }
    nodes
}

#[test]
fn partitions_spread_over_a_cluster_and_come_back_whole() {
    let nodes = cluster();
    let further = nodes[1..].iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let settings = RedisSettings { topology: Topology::Cluster, nodes: further, ..settings(&nodes[0].url()) };
    run(async {
        let mut process = Process::new(&settings);
        for partition in 0..12 {
            for first in [0, 50, 100] {
                let result = process.write(vec![chunk_of(partition, first, first + 50, 0)]).await;
                result.unwrap_or_else(|failure| panic!("partition {partition}: {failure}"));
            }
        }
        for partition in 0..12 {
            let request = dashstream::pipeline::page::PageRequest { partition, ..request(20) };
            let page = process.page_of(&request, PATIENCE).await.unwrap();
            assert_eq!(offsets(&page, 20), (20..150).collect::<Vec<_>>(), "partition {partition}");
        }
        assert_eq!(process.bounds().await.map(|bounds| (bounds.low, bounds.next)), Some((0, 150)));
        process.writer.ping(Instant::now() + PATIENCE).await;
        assert!(process.state.is_up());
    });
    let keys: Vec<_> = nodes.iter().flat_map(Server::keys).collect();
    assert_eq!(keys.len(), 12);
    assert!(keys.iter().all(|(_, left)| *left > 0), "{keys:?}");
    let used = nodes.iter().filter(|node| !node.keys().is_empty()).count();
    assert!(used >= 2, "all partitions lie on one node");
}

#[test]
fn sentinels_name_the_server_and_its_successor() {
    let master = Server::start(&["--requirepass", "pw", "--masterauth", "pw"]);
    let replica = Server::start(&[
        "--requirepass",
        "pw",
        "--masterauth",
        "pw",
        "--replicaof",
        "127.0.0.1",
        &master.port.to_string(),
        "--repl-diskless-sync-delay",
        "0",
    ]);
    let ask = |port: u16, password: &str, words: &[&str]| -> Option<Value> {
        let url = format!("redis://{password}127.0.0.1:{port}");
        let mut client = deadpool_redis::redis::Client::open(url).ok()?.get_connection().ok()?;
        words.iter().skip(1).fold(cmd(words[0]), |mut command, word| command.arg(*word).clone()).query(&mut client).ok()
    };
    eventually("the replica to follow", || {
        let info = ask(replica.port, ":pw@", &["INFO", "replication"])?;
        format!("{info:?}").contains("master_link_status:up").then_some(())
    });
    let folder = tempfile::tempdir().unwrap();
    let sentinel = Sentinel::start(folder.path(), master.port);
    eventually("the sentinel to know the replica", || {
        let master = ask(sentinel.port, "", &["SENTINEL", "MASTER", "history"])?;
        format!("{master:?}").replace("bulk-string", "").contains("num-slaves").then_some(())?;
        let replicas = ask(sentinel.port, "", &["SENTINEL", "REPLICAS", "history"])?;
        matches!(replicas, Value::Array(list) if list.len() == 1).then_some(())
    });
    let topology = Topology::Sentinel { master: "history".into(), password: no_password() };
    let url = format!("redis://:pw@127.0.0.1:{}", sentinel.port);
    // A Sentinel that is not there is passed over.
    let nodes = vec![format!("127.0.0.1:{}", crate::support::free_port())];
    let settings = RedisSettings { topology, nodes, response_timeout: Duration::from_secs(3), ..settings(&url) };
    run(async {
        let mut process = Process::new(&settings);
        process.write(chunks(0, 100, 10)).await.unwrap();
        assert_eq!(offsets(&process.page(0).await.unwrap(), 0), (0..100).collect::<Vec<_>>());
        eventually("the replica to have it", || {
            let length = ask(replica.port, ":pw@", &["XLEN", &process.key(0)])?;
            (length == Value::Int(10)).then_some(())
        });
        eventually("a failover", || ask(sentinel.port, "", &["SENTINEL", "FAILOVER", "history"]));
        eventually("the replica to be promoted", || {
            format!("{:?}", ask(replica.port, ":pw@", &["ROLE"])?).contains("master").then_some(())
        });
        // Until the old one is demoted it takes writes that are lost; afterwards it refuses them.
        eventually("the old one to be demoted", || {
            format!("{:?}", ask(master.port, ":pw@", &["ROLE"])?).contains("slave").then_some(())
        });
        let begun = Instant::now();
        while let Err(failure) = process.write(vec![chunk(100, 110)]).await {
            assert!(begun.elapsed() < PATIENCE, "{failure}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(ask(replica.port, ":pw@", &["XLEN", &process.key(0)]), Some(Value::Int(11)));
        assert_eq!(offsets(&process.page(0).await.unwrap(), 0), (0..110).collect::<Vec<_>>());
    });
}

struct Sentinel {
    port: u16,
    child: std::process::Child,
}

impl Sentinel {
    fn start(folder: &std::path::Path, master: u16) -> Self {
        for _ in 0..20 {
            let port = crate::support::free_port();
            let config = folder.join("sentinel.conf");
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor history 127.0.0.1 {master} 1\n\
                 sentinel auth-pass history pw\nsentinel down-after-milliseconds history 60000\n",
                folder.display()
            );
            std::fs::write(&config, text).unwrap();
            let mut child = std::process::Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--", "redis-server"])
                .arg(&config)
                .arg("--sentinel")
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let client = deadpool_redis::redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
            let up = eventually("a sentinel", || match child.try_wait().unwrap() {
                Some(_) => Some(false),
                None => client.get_connection().ok().map(|_| true),
            });
            if up {
                return Self { port, child };
            }
        }
        panic!("no sentinel could be started");
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
