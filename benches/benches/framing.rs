//! Criterion: what it costs to find the messages in a buffer.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgimbal_wire::frame::peek;
use std::hint::black_box;

/// One answer to `SELECT abalance`, as PostgreSQL sends it.
fn small_answer() -> Vec<u8> {
    let mut answer = Vec::new();
    let description = [&[0, 1][..], b"abalance\0", &[0; 18]].concat();
    for (tag, body) in [
        (b'T', description.as_slice()),
        (b'D', &[0, 1, 0, 0, 0, 1, b'0']),
        (b'C', b"SELECT 1\0"),
        (b'Z', b"I"),
    ] {
        message(&mut answer, tag, body);
    }
    answer
}

fn message(buffer: &mut Vec<u8>, tag: u8, body: &[u8]) {
    buffer.push(tag);
    buffer.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    buffer.extend_from_slice(body);
}

/// Walks all messages and returns how many there are.
fn walk(mut buffer: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Some(header)) = peek(buffer) {
        buffer = buffer.get(header.total as usize..).unwrap_or_default();
        count += 1;
    }
    count
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    let answer = small_answer();
    assert_eq!(walk(&answer), 4);
    group.throughput(Throughput::Elements(4));
    group.bench_function("answer of 4 messages", |bencher| {
        bencher.iter(|| walk(black_box(&answer)))
    });

    let mut rows = Vec::new();
    for _ in 0..64 {
        message(&mut rows, b'D', &[0; 100]);
    }
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 rows of 100 bytes", |bencher| bencher.iter(|| walk(black_box(&rows))));
    group.finish();
}

criterion_group!(benches, framing);
criterion_main!(benches);
