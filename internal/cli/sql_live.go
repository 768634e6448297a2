package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"

	"golang.org/x/term"
)

// liveTable shows rows as they come: on a terminal a table that is drawn over
// itself, elsewhere a line for each row.
type liveTable struct {
	w        io.Writer
	terminal bool
	size     func() (columns, lines int)

	mu    sync.Mutex
	drawn int // lines on the screen
}

func newLiveTable(w io.Writer) *liveTable {
	t := &liveTable{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		t.terminal = true
		t.size = func() (int, int) {
			columns, lines, err := term.GetSize(int(f.Fd()))
			if err != nil || columns < 20 || lines < 5 {
				return 80, 24
			}
			return columns, lines
		}
	}
	return t
}

// draw replaces what is on the screen. A line that is too wide is cut, and of too
// many lines the last are left out.
func (t *liveTable) draw(lines []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	columns, height := t.size()
	var b bytes.Buffer
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", t.drawn)
	}
	if len(lines) > height-1 {
		lines = lines[:height-1]
	}
	for _, l := range lines {
		if r := []rune(l); len(r) > columns {
			l = string(r[:columns-1]) + "…"
		}
		b.WriteString(l + "\n")
	}
	t.drawn = len(lines)
	_, err := t.w.Write(b.Bytes())
	return err
}

// aligned lays rows out in columns.
func aligned(rows [][]string) []string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush() // into a strings.Builder, which cannot fail
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// rowText is a row in JSON as people read it: names and values, without quotes.
func rowText(row []byte) string {
	var parts []string
	d := json.NewDecoder(bytes.NewReader(row))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return strings.TrimSpace(string(row))
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return strings.TrimSpace(string(row))
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return strings.TrimSpace(string(row))
		}
		parts = append(parts, fmt.Sprint(name)+" "+cell(value))
	}
	return strings.Join(parts, ", ")
}

// cell is a JSON value as people read it.
func cell(value json.RawMessage) string {
	if len(value) == 0 || string(value) == "null" {
		return "NULL"
	}
	var text string
	if json.Unmarshal(value, &text) == nil {
		// A cell is one line.
		return strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, text)
	}
	return string(value)
}

// rowCells are the values of a row in JSON in the order of columns.
func rowCells(row []byte, columns []string) []string {
	var members map[string]json.RawMessage
	if json.Unmarshal(row, &members) != nil {
		return []string{string(row)}
	}
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = cell(members[c])
	}
	return cells
}
