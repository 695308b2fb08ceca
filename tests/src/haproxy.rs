//! Debian's HAProxy as a load balancer before several pgimbals: TCP, with a check of `/readyz`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::Signal;

use crate::pgimbal::Pgimbal;
use crate::port::free_port;
use crate::process::{self, Directory, Process};
use crate::until::{SOON, eventually};

/// A running HAProxy. It sends each client to the pgimbal with the fewest, of those that are ready.
pub struct HaProxy {
    process: Process,
    directory: Directory,
    /// The port for clients on 127.0.0.1.
    pub port: u16,
}

impl HaProxy {
    /// Starts it before these pgimbals, and returns when it has found all of them ready. Each is
    /// asked every 200 ms, and one answer decides.
    ///
    /// # Panics
    /// When there is no `haproxy`, or a pgimbal is not ready in time.
    #[must_use]
    pub fn before(replicas: &[Pgimbal]) -> Self {
        let directory = process::directory("haproxy");
        let port = free_port();
        let servers = replicas.iter().enumerate().map(|(number, replica)| {
            let Pgimbal { port, http_port, .. } = replica;
            format!("    server r{number} 127.0.0.1:{port} check port {http_port}\n")
        });
        let servers: String = servers.collect();
        let socket = directory.join("stats");
        let text = format!(
            "global\n    stats socket {} level user\n    maxconn 4000\n\
             defaults\n    mode tcp\n    timeout connect 2s\n    timeout check 1s\n    \
             timeout client 1h\n    timeout server 1h\n    retries 3\n    option redispatch 1\n\
             frontend clients\n    bind 127.0.0.1:{port}\n    default_backend replicas\n\
             backend replicas\n    balance leastconn\n    option httpchk GET /readyz\n    \
             http-check expect status 200\n    default-server inter 200ms fall 1 rise 1\n{servers}",
            socket.display()
        );
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, text).expect("a configuration");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let mut process = Process::start(command, &directory, Signal::KILL);
        process.wait_until_it_listens("haproxy", &[port]);
        let balancer = Self { process, directory, port };
        for number in 0..replicas.len() {
            eventually("each is ready", SOON, || balancer.is_up(number));
        }
        balancer
    }

    /// Whether it sends clients to the pgimbal of this number; `false` too when it does not say.
    #[must_use]
    pub fn is_up(&self, number: usize) -> bool {
        let row = format!("replicas,r{number},");
        let table = self.table().unwrap_or_default();
        let row = table.lines().find(|line| line.starts_with(&row)).unwrap_or_default();
        row.split(',').any(|field| field.starts_with("UP"))
    }

    fn table(&self) -> std::io::Result<String> {
        let mut socket = UnixStream::connect(self.directory.join("stats"))?;
        socket.set_read_timeout(Some(SOON))?;
        socket.write_all(b"show stat\n")?;
        let mut table = String::new();
        socket.read_to_string(&mut table)?;
        Ok(table)
    }

    /// Everything that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
