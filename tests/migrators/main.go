// Eight instances of a service that migrate one database when they start, as a rollout does.
//
//	migrators DRIVER    postgres (lib/pq) or pgx5
//
// PGIMBAL_PORT is where they connect. They keep their connections until the test has looked.
package main

import (
	"bufio"
	"embed"
	"errors"
	"fmt"
	"os"

	"github.com/golang-migrate/migrate/v4"
	_ "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	_ "github.com/golang-migrate/migrate/v4/database/postgres"
	"github.com/golang-migrate/migrate/v4/source/iofs"
)

const instances = 8

//go:embed migrations
var migrations embed.FS

type outcome struct {
	instance *migrate.Migrate
	applied  bool
	err      error
}

func run(driver string, start <-chan struct{}) outcome {
	source, err := iofs.New(migrations, "migrations")
	if err != nil {
		return outcome{err: err}
	}
	url := fmt.Sprintf("%s://scram:scram-secret@127.0.0.1:%s/app?sslmode=disable", driver, os.Getenv("PGIMBAL_PORT"))
	<-start
	instance, err := migrate.NewWithSourceInstance("iofs", source, url)
	if err != nil {
		return outcome{err: fmt.Errorf("opening: %w", err)}
	}
	switch err := instance.Up(); {
	case err == nil:
		return outcome{instance: instance, applied: true}
	case errors.Is(err, migrate.ErrNoChange):
		return outcome{instance: instance}
	default:
		return outcome{instance: instance, err: fmt.Errorf("migrating: %w", err)}
	}
}

func main() {
	outcomes := make(chan outcome, instances)
	start := make(chan struct{})
	for range instances {
		go func() { outcomes <- run(os.Args[1], start) }()
	}
	close(start)
	failed, applied := false, 0
	var running []*migrate.Migrate
	for range instances {
		result := <-outcomes
		if result.err != nil {
			failed = true
			fmt.Fprintln(os.Stderr, result.err)
		}
		if result.applied {
			applied++
		}
		if result.instance != nil {
			running = append(running, result.instance)
		}
	}
	if failed {
		os.Exit(1)
	}
	if applied != 1 {
		fmt.Fprintf(os.Stderr, "%d instances applied the migrations\n", applied)
		os.Exit(1)
	}
	fmt.Println("look at all eight")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, instance := range running {
		if source, database := instance.Close(); source != nil || database != nil {
			fmt.Fprintln(os.Stderr, source, database)
			os.Exit(1)
		}
	}
	fmt.Println("all done")
}
