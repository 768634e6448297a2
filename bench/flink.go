package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/test/harness"
)

// flink is a standalone Flink cluster: one JobManager and one TaskManager, each a
// Java process of its own, as its start scripts would start them. Jobs are handed
// in by a third process, which plans them and is not counted.
type flink struct {
	classes string // class path of a client
	home    string
	dir     string
	rest    string
	procs   []*exec.Cmd
	waiting sync.WaitGroup
}

// What Flink's own configuration opens of the Java platform to it.
var flinkOpens = []string{
	"--add-exports=java.base/sun.net.util=ALL-UNNAMED", "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
	"--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
	"--add-opens=java.base/java.lang=ALL-UNNAMED", "--add-opens=java.base/java.net=ALL-UNNAMED", "--add-opens=java.base/java.io=ALL-UNNAMED",
	"--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED", "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
	"--add-opens=java.base/java.text=ALL-UNNAMED", "--add-opens=java.base/java.time=ALL-UNNAMED", "--add-opens=java.base/java.util=ALL-UNNAMED",
	"--add-opens=java.base/java.util.concurrent=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
	"--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
}

// errNoFlink says that the peer is not installed.
var errNoFlink = errors.New("Flink is not installed (scripts/install flink)")

// findFlink returns the folder with Flink's lib, bin and opt, and its version.
func (b *bench) findFlink() (home, version string, err error) {
	found, err := filepath.Glob(filepath.Join(b.cache, "flink/lib/python3*/site-packages/pyflink/lib/flink-dist-*.jar"))
	if err != nil {
		return "", "", err
	}
	if len(found) != 1 {
		return "", "", errNoFlink
	}
	home, err = filepath.Abs(filepath.Dir(filepath.Dir(found[0])))
	return home, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "flink-dist-"), ".jar"), err
}

// startFlink starts a cluster whose files are in dir, and waits until its
// TaskManager has told the JobManager about its slots.
func (b *bench) startFlink(home, dir string, parallelism int) (f *flink, err error) {
	client, err := filepath.Abs(filepath.Join(b.cache, "flink/classes"))
	if err != nil {
		return nil, err
	}
	f = &flink{home: home, dir: dir, classes: client + ":" + home + "/lib/*"}
	rpc, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	if f.rest, err = harness.FreeAddress(); err != nil {
		return nil, err
	}
	_, rpcPort, err := net.SplitHostPort(rpc)
	if err != nil {
		return nil, err
	}
	_, restPort, err := net.SplitHostPort(f.rest)
	if err != nil {
		return nil, err
	}
	// Memory is what the distribution's sample gives the JobManager, and more than
	// twice that for the TaskManager. Object reuse spares copies between operators
	// and is off by default.
	text := fmt.Sprintf(`jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: %s
jobmanager.bind-host: 127.0.0.1
jobmanager.memory.process.size: 1600m
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: %s
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.memory.process.size: 4g
taskmanager.numberOfTaskSlots: 2
parallelism.default: %d
execution.target: remote
pipeline.object-reuse: true
`, rpcPort, restPort, parallelism)
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o644); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	for _, p := range []struct{ params, class, more string }{
		{"GET_JM_RESOURCE_PARAMS", "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint", "--executionMode cluster"},
		{"GET_TM_RESOURCE_PARAMS", "org.apache.flink.runtime.taskexecutor.TaskManagerRunner", ""},
	} {
		machine, settings, err := f.params(b, p.params)
		if err != nil {
			return nil, err
		}
		args := append(machine, flinkOpens...)
		args = append(args, "-cp", home+"/lib/*", p.class, "--configDir", dir)
		args = append(append(args, strings.Fields(p.more)...), settings...)
		said, err := os.Create(filepath.Join(dir, p.params+".log"))
		if err != nil {
			return nil, err
		}
		command := exec.CommandContext(b.ctx, "java", args...)
		command.Stdout, command.Stderr = said, said
		err = command.Start()
		said.Close()
		if err != nil {
			return nil, err
		}
		f.procs = append(f.procs, command)
		f.waiting.Go(func() { command.Wait() })
	}
	for range 600 {
		time.Sleep(100 * time.Millisecond)
		reply, err := http.Get("http://" + f.rest + "/overview")
		if err != nil {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(reply.Body, 1<<16))
		reply.Body.Close()
		if err == nil && bytes.Contains(text, []byte(`"taskmanagers":1`)) {
			return f, nil
		}
	}
	return nil, errors.New("Flink is not ready within a minute")
}

// params asks Flink's own calculator for the settings of a process.
func (f *flink) params(b *bench, what string) (machine, settings []string, err error) {
	out, err := exec.CommandContext(b.ctx, "java", "-cp", f.home+"/bin/bash-java-utils.jar:"+f.home+"/lib/*",
		"org.apache.flink.runtime.util.bash.BashJavaUtils", what, "--configDir", f.dir).Output()
	if err != nil {
		return nil, nil, fmt.Errorf("settings of Flink: %w", err)
	}
	var found [][]string
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "BASH_JAVA_UTILS_EXEC_RESULT:"); ok {
			found = append(found, strings.Fields(rest))
		}
	}
	if len(found) != 2 {
		return nil, nil, fmt.Errorf("settings of Flink: %d lines instead of 2", len(found))
	}
	return found[0], found[1], nil
}

// cpu is the processor time of both processes since their start.
func (f *flink) cpu() (total time.Duration, err error) {
	for _, p := range f.procs {
		t, err := harness.ProcessCPU(p.Process.Pid)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}

// job runs a query from a file of rows to files, and returns the processor time
// of the cluster and the rows that were written.
func (f *flink) job(b *bench, p fileProgram, source string) (cpu time.Duration, rows int, err error) {
	target := filepath.Join(f.dir, "out")
	if err := os.RemoveAll(target); err != nil {
		return 0, 0, err
	}
	// Rows of the millisecond that a watermark names would be late: it keeps one
	// behind.
	statements := fmt.Sprintf(`CREATE TABLE source (id STRING, kind STRING, n INT, v DOUBLE, ts BIGINT,
event_time AS TO_TIMESTAMP_LTZ(ts, 3), WATERMARK FOR event_time AS event_time - INTERVAL '0.001' SECOND) WITH ('connector'='filesystem', 'path'='file://%s', 'format'='json');
CREATE TABLE target (%s) WITH ('connector'='filesystem', 'path'='file://%s', 'format'='json');
INSERT INTO target %s;
`, source, p.flinkColumns, target, p.flinkQuery)
	file := filepath.Join(f.dir, "job.sql")
	if err := os.WriteFile(file, []byte(statements), 0o644); err != nil {
		return 0, 0, err
	}
	before, err := f.cpu()
	if err != nil {
		return 0, 0, err
	}
	args := append(append([]string(nil), flinkOpens...), "-cp", f.classes, "SqlFile", f.dir, file)
	if out, err := exec.CommandContext(b.ctx, "java", args...).CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("Flink: %w\n%.4000s", err, out)
	}
	after, err := f.cpu()
	if err != nil {
		return 0, 0, err
	}
	err = filepath.WalkDir(target, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n, err := lines(name)
		rows += n
		return err
	})
	return after - before, rows, err
}

func (f *flink) stop() {
	for _, p := range f.procs {
		p.Process.Kill()
	}
	f.waiting.Wait()
}

// flinkPeers runs the same queries over the same rows, in turn, with the command
// line and with Flink: from a file of JSON lines to files of JSON lines.
func (b *bench) flinkPeers() error {
	home, version, err := b.findFlink()
	if errors.Is(err, errNoFlink) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	schema, target, source := filepath.Join(dir, "schema.json"), filepath.Join(dir, "millrace.out"), filepath.Join(dir, "rows.json")
	if err := schemaFile(schema, sqlColumns); err != nil {
		return err
	}
	for _, p := range filePrograms {
		if p.flinkQuery == "" {
			continue
		}
		n := int(p.rows * float64(b.sqlRows()))
		if err := newRowMaker(rowKeys, p.perMilli).write(source, n); err != nil {
			return err
		}
		// A cluster of its own for each query: what the compiler of the one before
		// has learnt does not help or hurt.
		work := filepath.Join(dir, "flink")
		if err := os.MkdirAll(work, 0o755); err != nil {
			return err
		}
		err := func() error {
			f, err := b.startFlink(home, work, 1)
			if err != nil {
				return err
			}
			defer f.stop()
			// The first run warms up; with the start of both processes it is told
			// apart.
			if _, _, err := f.job(b, p, source); err != nil {
				return err
			}
			cold, err := f.cpu()
			if err != nil {
				return err
			}
			var ours, theirs spread
			for turn := range sqlTurns {
				cpu, rows, err := f.job(b, p, source)
				if err != nil {
					return err
				}
				theirs.add(float64(n)/cpu.Seconds(), turn)
				cpu, err = b.sqlRun(p.code, target, "--schema", schema, "--input", source, "--rowtime", "ts")
				if err != nil {
					return err
				}
				ours.add(float64(n)/cpu.Seconds(), turn)
				made, err := lines(target)
				if err != nil {
					return err
				}
				if made != rows {
					return fmt.Errorf("millrace gives %d rows, Flink %d", made, rows)
				}
			}
			ratio := ours.sum / theirs.sum
			b.row(p.name+": millrace", fmt.Sprintf("%.0f to %.0f rows / CPU s", ours.low, ours.high), "", true,
				fmt.Sprintf("sql run, the whole process, start included; %d rows from file to file", n))
			b.row(p.name+": Flink "+version, fmt.Sprintf("%.0f to %.0f rows / CPU s; millrace does **%.1f ×**", theirs.low, theirs.high, ratio), "≥ 4 ×", ratio >= 4,
				fmt.Sprintf("JobManager and one TaskManager, warm; start and first run, %.0f rows / CPU s", float64(n)/cold.Seconds()))
			return nil
		}()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}
