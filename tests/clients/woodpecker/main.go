// What a Woodpecker server does to its database, with its libraries: xorm over lib/pq, or over pgx
// when PGX is set. It gets Woodpecker's own variables, those of deploy/examples/woodpecker.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"xorm.io/xorm"
)

const (
	workers = 12
	rounds  = 20
)

// Pipeline is a table of the kind that Woodpecker has.
type Pipeline struct {
	ID      int64  `xorm:"pk autoincr 'id'"`
	Worker  int64  `xorm:"UNIQUE(s) INDEX 'worker'"`
	Number  int64  `xorm:"UNIQUE(s) 'number'"`
	Status  string `xorm:"INDEX 'status'"`
	Message string `xorm:"TEXT 'message'"`
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	must(err)
	return value
}

func connect() *xorm.Engine {
	driver := os.Getenv("WOODPECKER_DATABASE_DRIVER")
	if os.Getenv("PGX") != "" {
		driver = "pgx"
	}
	engine, err := xorm.NewEngine(driver, os.Getenv("WOODPECKER_DATABASE_DATASOURCE"))
	must(err)
	engine.SetMaxOpenConns(number("WOODPECKER_DATABASE_MAX_CONNECTIONS"))
	engine.SetMaxIdleConns(number("WOODPECKER_DATABASE_IDLE_CONNECTIONS"))
	lifetime, err := time.ParseDuration(os.Getenv("WOODPECKER_DATABASE_CONNECTION_TIMEOUT"))
	must(err)
	engine.SetConnMaxLifetime(lifetime)
	return engine
}

func work(engine *xorm.Engine, worker int64) {
	for round := int64(1); round <= rounds; round++ {
		pipeline := &Pipeline{Worker: worker, Number: round, Status: "pending", Message: "it's $1"}
		_, err := engine.Insert(pipeline)
		must(err)
		// Parameters of other numbers and types, one after the other.
		found := new(Pipeline)
		has, err := engine.Where("worker = ? AND number = ?", worker, round).Get(found)
		must(err)
		if !has || *found != *pipeline {
			panic(fmt.Sprintf("%v in place of %v", found, pipeline))
		}
		count, err := engine.Where("worker = ?", worker).Count(new(Pipeline))
		must(err)
		if count != round {
			panic(fmt.Sprintf("%d pipelines in place of %d", count, round))
		}
		session := engine.NewSession()
		must(session.Begin())
		_, err = session.ID(pipeline.ID).Cols("status").Update(&Pipeline{Status: "success"})
		must(err)
		if round%4 == 0 {
			must(session.Rollback())
		} else {
			must(session.Commit())
		}
		must(session.Close())
		// A row at a time, while its connection is busy with it.
		rows, err := engine.Where("worker = ?", worker).Rows(new(Pipeline))
		must(err)
		seen := int64(0)
		for rows.Next() {
			must(rows.Scan(new(Pipeline)))
			seen++
		}
		must(rows.Close())
		if seen != round {
			panic(fmt.Sprintf("%d rows in place of %d", seen, round))
		}
	}
}

func each(count int, work func(int)) {
	var group sync.WaitGroup
	for one := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			work(one)
		}()
	}
	group.Wait()
}

func look(what string) {
	fmt.Println("look at", what)
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	must(err)
}

func main() {
	engine := connect()
	must(engine.Sync(new(Pipeline)))
	// A second look at the tables that are there changes nothing.
	must(engine.Sync(new(Pipeline)))
	each(workers, func(worker int) { work(engine, int64(worker)) })
	look("the restart")
	each(workers, func(worker int) { work(engine, int64(100+worker)) })
	done, err := engine.Where("status = ?", "success").Count(new(Pipeline))
	must(err)
	if done != 2*workers*rounds*3/4 {
		panic(fmt.Sprintf("%d have succeeded", done))
	}
	must(engine.Close())
	fmt.Println("all done")
}
