// Command bench measures a millrace binary from outside, and other servers
// beside it, and prints one row for each figure.
//
// What counts is the processor time of the server process, user and system, as
// the kernel accounts it: the load generator shares the machine, so that
// elapsed time would measure both. Requests are prepared before the clock runs
// and signed again once a second; every reply is read and checked. Each row
// runs on a server of its own over a fresh directory, on the real disk.
//
//	make bench                            all rows
//	make bench ARGS='-rows put,compare'   some of them
//	make bench ARGS='-full'               long forms: 10 GB restart
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

type bench struct {
	ctx      context.Context
	cache    string
	duration time.Duration
	full     bool
	out      *os.File
}

// row prints one line of the table.
func (b *bench) row(what, got, budget string, reached bool, method string) {
	mark := "yes"
	if !reached {
		mark = "NO"
	}
	if budget == "" {
		mark = ""
	}
	fmt.Fprintf(b.out, "| %s | %s | %s | %s | %s |\n", what, got, budget, mark, method)
}

func main() {
	binary := flag.String("binary", "", "millrace binary to measure (built from this checkout if empty)")
	cache := flag.String("cache", "../.cache", "where scripts/install puts the other servers")
	rows := flag.String("rows", "put,get,fanout,shards,flat,restart,idle,compare,ingest,deliver,partitions,idledelivery,deliverypeers,sqlfiles,flink,nexmark,sql,sqllatency,sqlstate", "which groups of rows")
	duration := flag.Duration("duration", 8*time.Second, "load time of a row")
	full := flag.Bool("full", false, "long forms")
	flag.Parse()
	if *binary != "" {
		os.Setenv("BINARY_UNDER_TEST", *binary)
	}
	b := &bench{ctx: context.Background(), cache: *cache, duration: *duration, full: *full, out: os.Stdout}
	fmt.Fprintf(b.out, "%d cores, %s/%s, %s; load generator on the same machine\n\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	fmt.Fprintln(b.out, "| what | measured | budget | reached | method |\n|---|---|---|---|---|")
	groups := map[string]func() error{
		"put": b.put, "get": b.get, "fanout": b.fanOut, "shards": b.shards, "flat": b.flat, "restart": b.restart, "idle": b.idle, "compare": b.compare,
		"ingest": b.ingest, "deliver": b.deliver, "partitions": b.partitions, "idledelivery": b.idleStreams,
		"deliverypeers": b.deliveryPeers, "sqlfiles": b.sqlFiles, "flink": b.flinkPeers, "nexmark": b.nexmarkRows,
		"sql": b.sqlServer, "sqllatency": b.sqlLatency, "sqlstate": b.sqlState,
	}
	failed := false
	for _, name := range strings.Split(*rows, ",") {
		run, ok := groups[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "bench: no rows are called %q\n", name)
			os.Exit(1)
		}
		if err := run(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", name, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
