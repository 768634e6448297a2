package index

// source is one of the tables an iterator goes through.
type source struct {
	memory  *memoryTable
	table   *tableIterator
	current *operation // of memory
}

func (s *source) seek(key string) {
	if s.memory != nil {
		s.current = s.memory.from(key)
		return
	}
	s.table.seek(key)
}

func (s *source) advance() {
	if s.memory != nil {
		s.current = s.memory.from(s.current.key + "\x00")
		return
	}
	s.table.advance()
}

func (s *source) entry() *operation {
	if s.memory != nil {
		return s.current
	}
	if s.table.valid {
		return &s.table.entry
	}
	return nil
}

func (s *source) failed() error {
	if s.table != nil {
		return s.table.err
	}
	return nil
}

// Iterator goes through an index in the order of its keys. It sees everything
// that was committed before it was made, and perhaps some of what came later.
// One goroutine uses it, and closes it.
type Iterator struct {
	sources []*source // newest first
	tables  []*table
	entry   operation
	valid   bool
	err     error
}

// Iterate returns an iterator that stands nowhere: Seek first.
func (s *Store) Iterate() *Iterator {
	memories, tables, err := s.snapshot()
	i := &Iterator{tables: tables, err: err}
	for _, m := range memories {
		i.sources = append(i.sources, &source{memory: m})
	}
	for _, t := range tables {
		i.sources = append(i.sources, &source{table: &tableIterator{t: t}})
	}
	return i
}

// Seek goes to the first key at or after key, and tells whether there is one.
func (i *Iterator) Seek(key string) bool {
	i.seek(key)
	i.skipDeleted()
	return i.valid
}

// Next goes to the next key, and tells whether there is one.
func (i *Iterator) Next() bool {
	if !i.valid {
		return false
	}
	i.step()
	i.skipDeleted()
	return i.valid
}

// Key is the key the iterator stands at.
func (i *Iterator) Key() string { return i.entry.key }

// Value is its value, valid until the iterator moves.
func (i *Iterator) Value() []byte { return i.entry.value }

// Err is what kept the iterator from going on; nil at the end.
func (i *Iterator) Err() error { return i.err }

// Close lets go of the files.
func (i *Iterator) Close() {
	for _, t := range i.tables {
		t.release()
	}
	i.tables, i.valid = nil, false
}

func (i *Iterator) skipDeleted() {
	for i.valid && i.entry.deleted {
		i.step()
	}
}

func (i *Iterator) seek(key string) {
	if i.err != nil {
		return
	}
	for _, s := range i.sources {
		s.seek(key)
	}
	i.pick()
}

// step goes to the next key, deleted ones included.
func (i *Iterator) step() {
	for _, s := range i.sources {
		if e := s.entry(); e != nil && e.key == i.entry.key {
			s.advance()
		}
	}
	i.pick()
}

// pick takes the smallest key, from the newest table that has it.
func (i *Iterator) pick() {
	i.valid = false
	var least *operation
	for _, s := range i.sources {
		if err := s.failed(); err != nil {
			i.err, i.valid = err, false
			return
		}
		if e := s.entry(); e != nil && (least == nil || e.key < least.key) {
			least = e
		}
	}
	if least != nil {
		i.entry, i.valid = *least, true
	}
}
