// A busy pgxpool that pings each connection before it hands it out, and whose clients never pause
// for long. tests/src/busy_pool.rs has the conversation.
package main

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var acknowledged, errors, failed atomic.Int64

func transaction(pool *pgxpool.Pool, id string) error {
	return pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), "insert into done (id) values ($1)", id)
		if err != nil {
			return err
		}
		_, err = tx.Exec(context.Background(), "select pg_sleep(0.005)")
		return err
	})
}

func work(pool *pgxpool.Pool, prefix string, pause time.Duration, begun *sync.WaitGroup, over chan struct{}) {
	hasFailed := false
	for number := 0; ; number++ {
		if err := transaction(pool, fmt.Sprintf("%s-%d", prefix, number)); err != nil {
			errors.Add(1)
			hasFailed = true
			fmt.Fprintf(os.Stderr, "%s-%d: %v\n", prefix, number, err)
		} else {
			acknowledged.Add(1)
		}
		if number == 0 {
			begun.Done()
		}
		select {
		case <-over:
			if hasFailed {
				failed.Add(1)
			}
			return
		case <-time.After(pause/2 + time.Duration(rand.Int63n(int64(pause)))):
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func or(variable, otherwise string) string {
	if value, ok := os.LookupEnv(variable); ok {
		return value
	}
	return otherwise
}

func main() {
	// A program of its own, by its name.
	if len(os.Args) > 1 && os.Args[1] == "reads" {
		readOwnWrites()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "listening" {
		listen()
		return
	}
	clients := must(strconv.Atoi(os.Getenv("BUSY_CLIENTS")))
	pause := time.Duration(must(strconv.ParseFloat(os.Getenv("BUSY_PAUSE"), 64)) * float64(time.Second))
	config := must(pgxpool.ParseConfig(fmt.Sprintf(
		"host=127.0.0.1 port=%s dbname=app user=%s password=%s sslmode=prefer", os.Getenv("PGIMBAL_PORT"),
		or("BUSY_USER", "app"), or("BUSY_PASSWORD", "app-secret"))))
	config.MinConns, config.MaxConns = int32(clients), int32(clients)
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	pool := must(pgxpool.NewWithConfig(context.Background(), config))
	var begun, ended sync.WaitGroup
	over := make(chan struct{})
	begun.Add(clients)
	for worker := 0; worker < clients; worker++ {
		ended.Add(1)
		go func() {
			defer ended.Done()
			work(pool, fmt.Sprintf("%s-%d", os.Getenv("BUSY_NAME"), worker), pause, &begun, over)
		}()
	}
	begun.Wait()
	fmt.Println("busy")
	// The test closes it when the clients shall stop.
	io.Copy(io.Discard, os.Stdin)
	close(over)
	ended.Wait()
	pool.Close()
	fmt.Printf("acknowledged %d errors %d failed %d\n", acknowledged.Load(), errors.Load(), failed.Load())
}
