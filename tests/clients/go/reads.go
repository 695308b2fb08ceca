// Writes and reads back by pgx; tests/tests/reads/drivers.rs says how.
package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	write = "update pairs set pair = $1 where id = $2 and pair < $1"
	read  = "select pair, is_standby() from pairs where id = $1"
)

var ways = [3]string{"autocommit", "transaction", "read_only"}

// What each way has counted: pairs, and reads on a replica.
var counts, onReplicas [3]atomic.Int64

var (
	readsOver    atomic.Bool
	readsRunning sync.WaitGroup
)

type readsClient struct {
	id             int
	writer, reader *pgx.Conn
}

func (client *readsClient) connect() error {
	open := func(port, database string) (*pgx.Conn, error) {
		return pgx.Connect(context.Background(), fmt.Sprintf(
			"host=127.0.0.1 port=%s dbname=%s user=app password=app-secret sslmode=disable",
			os.Getenv(port), os.Getenv(database)))
	}
	var err error
	if client.writer, err = open("READS_WRITE_PORT", "READS_WRITE_DATABASE"); err != nil {
		return err
	}
	client.reader = client.writer
	if os.Getenv("READS_SESSIONS") != "same" {
		client.reader, err = open("PGIMBAL_PORT", "READS_DATABASE")
	}
	return err
}

func (client *readsClient) disconnect() {
	for _, connection := range []*pgx.Conn{client.writer, client.reader} {
		if connection != nil {
			connection.Close(context.Background())
		}
	}
	client.writer, client.reader = nil, nil
}

func (client *readsClient) write(way, pair int) error {
	if ways[way] == "autocommit" {
		_, err := client.writer.Exec(context.Background(), write, pair, client.id)
		return err
	}
	return pgx.BeginFunc(context.Background(), client.writer, func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), write, pair, client.id)
		return err
	})
}

func (client *readsClient) read(way int) (seen int, onReplica bool, err error) {
	if ways[way] != "read_only" {
		row := client.reader.QueryRow(context.Background(), read, client.id)
		return seen, onReplica, row.Scan(&seen, &onReplica)
	}
	options := pgx.TxOptions{AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(context.Background(), client.reader, options, func(tx pgx.Tx) error {
		return tx.QueryRow(context.Background(), read, client.id).Scan(&seen, &onReplica)
	})
	return seen, onReplica, err
}

func (client *readsClient) pair(way, pair int, pause time.Duration) error {
	if client.writer == nil {
		if err := client.connect(); err != nil {
			return err
		}
	}
	if err := client.write(way, pair); err != nil {
		return err
	}
	// Every second read follows its write at once.
	if rand.Intn(2) == 0 {
		time.Sleep(time.Duration(rand.Int63n(int64(pause) + 1)))
	}
	seen, onReplica, err := client.read(way)
	if err != nil {
		return err
	}
	if seen != pair {
		fmt.Fprintf(os.Stderr, "a stale read of %d: %d instead of %d, %s, on a replica: %t\n",
			client.id, seen, pair, ways[way], onReplica)
		os.Exit(1)
	}
	counts[way].Add(1)
	if onReplica {
		onReplicas[way].Add(1)
	}
	return nil
}

func (client *readsClient) run(pairs int, pause time.Duration) {
	defer client.disconnect()
	for pair := 1; pair <= pairs || !readsOver.Load(); pair++ {
		if pair == 2 {
			readsRunning.Done()
		}
		if err := client.pair(pair%len(ways), pair, pause); err != nil {
			fmt.Fprintf(os.Stderr, "client %d: %v\n", client.id, err)
			client.disconnect()
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func readOwnWrites() {
	number := func(name string) int { return must(strconv.Atoi(os.Getenv(name))) }
	seconds := must(strconv.ParseFloat(os.Getenv("READS_PAUSE"), 64))
	clients := number("READS_CLIENTS")
	var ended sync.WaitGroup
	readsRunning.Add(clients)
	for index := 0; index < clients; index++ {
		client := readsClient{id: number("READS_FIRST_ID") + index}
		ended.Add(1)
		go func() {
			defer ended.Done()
			client.run(number("READS_PAIRS"), time.Duration(seconds*float64(time.Second)))
		}()
	}
	input := bufio.NewReader(os.Stdin)
	lookAt := func(what string) {
		fmt.Println("look at", what)
		input.ReadString('\n')
	}
	readsRunning.Wait()
	lookAt("running")
	readsOver.Store(true)
	ended.Wait()
	for way, name := range ways {
		lookAt(fmt.Sprintf("%s %d %d", name, counts[way].Load(), onReplicas[way].Load()))
	}
	fmt.Println("all done")
}
