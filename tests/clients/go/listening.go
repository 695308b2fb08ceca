// LISTEN by pgx and lib/pq, each with more listeners than the pool of 5 has connections.
// tests/tests/listening/drivers.rs ends the server's connections when it is asked to look.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lib/pq"
)

const listeners = 12

// A client that listens.
type listener struct {
	// Blocks until the next notification: its channel and payload.
	next func() (string, string)
	// Runs a statement without parameters on its connection; nil where the driver has no way to.
	run func(string) error
}

func listeningDSN() string {
	return fmt.Sprintf("host=127.0.0.1 port=%s dbname=app user=scram password=scram-secret sslmode=disable",
		os.Getenv("PGIMBAL_PORT"))
}

func pgxListener(channel string) listener {
	connection := must(pgx.Connect(context.Background(), listeningDSN()))
	run := func(sql string) error {
		_, err := connection.Exec(context.Background(), sql)
		return err
	}
	check(run("listen " + pgx.Identifier{channel}.Sanitize()))
	next := func() (string, string) {
		told := must(connection.WaitForNotification(context.Background()))
		return told.Channel, told.Payload
	}
	return listener{next, run}
}

func pqListener(channel string) listener {
	told := pq.NewListener(listeningDSN(), 10*time.Millisecond, time.Second, nil)
	check(told.Listen(channel))
	next := func() (string, string) {
		for notification := range told.Notify {
			// Nothing tells of a new connection.
			if notification != nil {
				return notification.Channel, notification.Extra
			}
		}
		panic("the listener has ended")
	}
	return listener{next: next}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func queue(number int) string {
	return fmt.Sprintf("Queue %d", number%3)
}

func listen() {
	open := pgxListener
	if os.Args[2] == "pq" {
		open = pqListener
	}
	clients := make([]listener, listeners)
	for number := range clients {
		clients[number] = open(queue(number))
	}
	other := must(pgx.Connect(context.Background(), listeningDSN()))
	notify := func(channel, payload string) error {
		_, err := other.Exec(context.Background(), "select pg_notify($1, $2)", channel, payload)
		return err
	}
	for n := 0; n < 30; n++ {
		check(notify(queue(n), fmt.Sprint(n)))
	}
	for number, client := range clients {
		for n := number % 3; n < 30; n += 3 {
			hears(client, queue(number), fmt.Sprint(n))
		}
	}
	for number, client := range clients[:3] {
		if client.run != nil {
			check(client.run(fmt.Sprintf("notify \"%s\", 'own'", queue(number))))
			for other := number; other < listeners; other += 3 {
				hears(clients[other], queue(number), "own")
			}
		}
	}
	fmt.Println("look at the loss")
	must(bufio.NewReader(os.Stdin).ReadString('\n'))
	all := make(chan struct{})
	go func() {
		for number, client := range clients {
			hears(client, queue(number), "again")
		}
		close(all)
	}()
	for {
		select {
		case <-all:
			fmt.Println("all done")
			return
		case <-time.After(20 * time.Millisecond):
			for number := 0; number < 3; number++ {
				check(notify(queue(number), "again"))
			}
		}
	}
}

func hears(client listener, channel, payload string) {
	if heard, told := client.next(); heard != channel || told != payload {
		panic(fmt.Sprintf("%s %s is heard, not %s %s", heard, told, channel, payload))
	}
}
