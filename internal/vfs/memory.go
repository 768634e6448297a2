package vfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Memory is a file system in memory that knows what a power failure would leave:
// what was synced, and nothing else for certain. It is for tests; every byte of a
// file is kept twice.
type Memory struct {
	mu       sync.Mutex
	capacity int64
	names    map[string]*inode // as seen now
	durable  map[string]*inode // as a power failure leaves them at worst
	pending  []nameChange      // what lies between the two, in order
	locks    map[string]bool
}

// inode is a file or a folder. The mutex of the Memory it was made in guards it.
type inode struct {
	dir     bool
	data    []byte
	synced  []byte
	pending []contentChange
}

// contentChange is one change of a file since its last sync.
type contentChange struct {
	offset int64
	data   []byte // a write, when size is negative
	size   int64  // a truncation, unless negative
}

// nameChange is one change of the name space since the folders it concerns were
// synced: name becomes node (nil removes it), and from, if set, disappears.
type nameChange struct {
	from, name string
	node       *inode
}

// NewMemory makes an empty file system.
func NewMemory() *Memory {
	root := &inode{dir: true}
	return &Memory{
		capacity: math.MaxInt64,
		names:    map[string]*inode{".": root},
		durable:  map[string]*inode{".": root},
		locks:    map[string]bool{},
	}
}

// SetCapacity bounds the sum of file sizes, in bytes; growing beyond fails as a
// full disk does.
func (m *Memory) SetCapacity(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = n
}

// CrashClone returns what a machine that lost power now may find on its disk.
// Everything synced is there. With seed 0 nothing else is; any other seed decides
// for each later write whether it is there, absent or torn at a 512-byte sector,
// in any combination, and for each folder how many of its changes are there,
// first ones first. Locks are not held. The original is unchanged.
func (m *Memory) CrashClone(seed uint64) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 0x6d696c6c))
	clone := NewMemory()
	clone.capacity = m.capacity

	kept := make(map[string]*inode, len(m.names))
	for name, node := range m.durable {
		kept[name] = node
	}
	lost := map[string]bool{} // folders whose further changes are lost
	for _, change := range m.pending {
		dirs := change.dirs()
		drop := seed == 0 || rng.IntN(3) == 0
		for _, dir := range dirs {
			drop = drop || lost[dir]
		}
		if drop {
			for _, dir := range dirs {
				lost[dir] = true
			}
			continue
		}
		change.apply(kept)
	}

	copies := map[*inode]*inode{}
	for _, name := range sortedNames(kept) {
		node := kept[name]
		c := copies[node]
		if c == nil {
			data := node.crashContent(rng, seed)
			c = &inode{dir: node.dir, data: data, synced: bytes.Clone(data)}
			copies[node] = c
		}
		clone.names[name], clone.durable[name] = c, c
	}
	return clone
}

func sortedNames(names map[string]*inode) []string {
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted
}

func (c nameChange) dirs() []string {
	dirs := []string{path.Dir(c.name)}
	if c.from != "" && path.Dir(c.from) != dirs[0] {
		dirs = append(dirs, path.Dir(c.from))
	}
	return dirs
}

func (c nameChange) apply(names map[string]*inode) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.node == nil {
		delete(names, c.name)
	} else {
		names[c.name] = c.node
	}
}

const sector = 512

func (n *inode) crashContent(rng *rand.Rand, seed uint64) []byte {
	data := bytes.Clone(n.synced)
	if seed == 0 {
		return data
	}
	for _, change := range n.pending {
		switch rng.IntN(4) {
		case 0: // absent
			continue
		case 1: // torn: some sectors, not necessarily the first ones
			if change.size < 0 {
				for at := int64(0); at < int64(len(change.data)); at += sector {
					end := min(at+sector-(change.offset+at)%sector, int64(len(change.data)))
					if rng.IntN(2) == 0 {
						data = writeInto(data, change.data[at:end], change.offset+at)
					}
				}
				continue
			}
		}
		data = change.apply(data)
	}
	return data
}

func (c contentChange) apply(data []byte) []byte {
	if c.size < 0 {
		return writeInto(data, c.data, c.offset)
	}
	return resize(data, c.size)
}

func writeInto(data, p []byte, offset int64) []byte {
	if end := offset + int64(len(p)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[offset:], p)
	return data
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// lookup returns the node of a cleaned name.
func (m *Memory) lookup(op, name string) (*inode, error) {
	node := m.names[name]
	if node == nil {
		return nil, pathError(op, name, fs.ErrNotExist)
	}
	return node, nil
}

// parentLocked checks that the folder of name exists.
func (m *Memory) parentLocked(op, name string) error {
	parent := m.names[path.Dir(name)]
	if parent == nil || !parent.dir {
		return pathError(op, name, fs.ErrNotExist)
	}
	return nil
}

func (m *Memory) changeLocked(change nameChange) {
	change.apply(m.names)
	m.pending = append(m.pending, change)
}

func (m *Memory) Open(name string, mode Mode) (File, error) {
	name, err := clean("open", name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.names[name]
	switch {
	case node == nil && mode&Create == 0:
		return nil, pathError("open", name, fs.ErrNotExist)
	case node == nil:
		if err := m.parentLocked("open", name); err != nil {
			return nil, err
		}
		node = &inode{}
		m.changeLocked(nameChange{name: name, node: node})
	case mode&Exclusive != 0:
		return nil, pathError("open", name, fs.ErrExist)
	case node.dir:
		return nil, pathError("open", name, syscall.EISDIR)
	case mode&Empty != 0 && len(node.data) > 0:
		node.change(contentChange{size: 0})
	}
	return &memoryFile{m: m, name: name, node: node, mode: mode}, nil
}

func (n *inode) change(c contentChange) {
	n.data = c.apply(n.data)
	n.pending = append(n.pending, c)
}

func (n *inode) sync() {
	for _, c := range n.pending {
		n.synced = c.apply(n.synced)
	}
	n.pending = nil
}

func (m *Memory) Rename(from, to string) error {
	from, err := clean("rename", from)
	if err != nil {
		return err
	}
	to, err = clean("rename", to)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup("rename", from)
	if err != nil {
		return err
	}
	if err := m.parentLocked("rename", to); err != nil {
		return err
	}
	if old := m.names[to]; node.dir || old != nil && old.dir {
		return pathError("rename", from, syscall.EISDIR)
	}
	if from != to {
		m.changeLocked(nameChange{from: from, name: to, node: node})
	}
	return nil
}

func (m *Memory) Remove(name string) error {
	name, err := clean("remove", name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup("remove", name)
	if err != nil {
		return err
	}
	if node.dir {
		for other := range m.names {
			if strings.HasPrefix(other, name+"/") {
				return pathError("remove", name, syscall.ENOTEMPTY)
			}
		}
	}
	m.changeLocked(nameChange{name: name})
	return nil
}

func (m *Memory) MkdirAll(name string) error {
	name, err := clean("mkdir", name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mkdirLocked(name)
}

func (m *Memory) mkdirLocked(name string) error {
	if node := m.names[name]; node != nil {
		if !node.dir {
			return pathError("mkdir", name, syscall.ENOTDIR)
		}
		return nil
	}
	if err := m.mkdirLocked(path.Dir(name)); err != nil {
		return err
	}
	m.changeLocked(nameChange{name: name, node: &inode{dir: true}})
	m.syncDirLocked(path.Dir(name))
	return nil
}

func (m *Memory) ReadDir(name string) ([]Info, error) {
	name, err := clean("readdir", name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if !node.dir {
		return nil, pathError("readdir", name, syscall.ENOTDIR)
	}
	var infos []Info
	for other, node := range m.names {
		if other != "." && path.Dir(other) == name {
			infos = append(infos, infoOfNode(other, node))
		}
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

func infoOfNode(name string, node *inode) Info {
	return Info{Name: path.Base(name), Size: int64(len(node.data)), Dir: node.dir}
}

func (m *Memory) Stat(name string) (Info, error) {
	name, err := clean("stat", name)
	if err != nil {
		return Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup("stat", name)
	if err != nil {
		return Info{}, err
	}
	return infoOfNode(name, node), nil
}

func (m *Memory) SyncDir(name string) error {
	name, err := clean("sync", name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.lookup("sync", name); err != nil {
		return err
	}
	m.syncDirLocked(name)
	return nil
}

func (m *Memory) syncDirLocked(name string) {
	rest := m.pending[:0]
	for _, change := range m.pending {
		if slices.Contains(change.dirs(), name) {
			change.apply(m.durable)
		} else {
			rest = append(rest, change)
		}
	}
	clear(m.pending[len(rest):])
	m.pending = rest
}

func (m *Memory) Lock(name string) (io.Closer, error) {
	f, err := m.Open(name, Write|Create)
	if err != nil {
		return nil, err
	}
	f.Close()
	name, _ = clean("lock", name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, pathError("lock", name, ErrLocked)
	}
	m.locks[name] = true
	return &memoryLock{m: m, name: name}, nil
}

type memoryLock struct {
	m    *Memory
	name string
	once sync.Once
}

func (l *memoryLock) Close() error {
	l.once.Do(func() {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		delete(l.m.locks, l.name)
	})
	return nil
}

func (m *Memory) Space() (Space, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	used := m.usedLocked()
	return Space{Free: uint64(max(0, m.capacity-used)), Total: uint64(m.capacity)}, nil
}

func (m *Memory) usedLocked() int64 {
	var used int64
	for _, node := range m.names {
		used += int64(len(node.data))
	}
	return used
}

type memoryFile struct {
	m      *Memory
	name   string
	node   *inode
	mode   Mode
	closed bool
}

// locked runs f with the file system locked, if the file is open for what f does.
func (f *memoryFile) locked(op string, write bool, do func() error) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError(op, f.name, fs.ErrClosed)
	}
	if write && f.mode&Write == 0 {
		return pathError(op, f.name, syscall.EBADF)
	}
	return do()
}

func (f *memoryFile) ReadAt(p []byte, offset int64) (n int, err error) {
	err = f.locked("read", false, func() error {
		if offset < 0 {
			return pathError("read", f.name, fs.ErrInvalid)
		}
		if offset < int64(len(f.node.data)) {
			n = copy(p, f.node.data[offset:])
		}
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *memoryFile) WriteAt(p []byte, offset int64) (n int, err error) {
	err = f.locked("write", true, func() error {
		if offset < 0 {
			return pathError("write", f.name, fs.ErrInvalid)
		}
		if f.mode&(Durable|Uncached) != 0 && (offset%Alignment != 0 || len(p)%Alignment != 0) {
			return pathError("write", f.name, fmt.Errorf("%d bytes at %d are not aligned: %w", len(p), offset, fs.ErrInvalid))
		}
		if grown := offset + int64(len(p)) - int64(len(f.node.data)); grown > 0 && f.m.usedLocked()+grown > f.m.capacity {
			return pathError("write", f.name, syscall.ENOSPC)
		}
		f.node.change(contentChange{offset: offset, data: bytes.Clone(p), size: -1})
		if f.mode&Durable != 0 {
			f.node.sync()
		}
		n = len(p)
		return nil
	})
	return n, err
}

// writeVolatile is WriteAt of a Durable file that loses power before it returns.
func (f *memoryFile) writeVolatile(p []byte, offset int64) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.node.change(contentChange{offset: offset, data: bytes.Clone(p), size: -1})
}

func (f *memoryFile) Sync() error {
	return f.locked("sync", false, func() error {
		f.node.sync()
		return nil
	})
}

func (f *memoryFile) Size() (size int64, err error) {
	err = f.locked("stat", false, func() error {
		size = int64(len(f.node.data))
		return nil
	})
	return size, err
}

func (f *memoryFile) Truncate(size int64) error {
	return f.locked("truncate", true, func() error {
		if grown := size - int64(len(f.node.data)); grown > 0 && f.m.usedLocked()+grown > f.m.capacity {
			return pathError("truncate", f.name, syscall.ENOSPC)
		}
		f.node.change(contentChange{size: size})
		return nil
	})
}

func (f *memoryFile) Allocate(offset, length int64) error {
	size, err := f.Size()
	if err != nil || offset+length <= size {
		return err
	}
	return f.Truncate(offset + length)
}

func (f *memoryFile) PunchHole(offset, length int64) error {
	return f.locked("punch", true, func() error {
		end := min(offset+length, int64(len(f.node.data)))
		if offset < end {
			f.node.change(contentChange{offset: offset, data: make([]byte, end-offset), size: -1})
		}
		return nil
	})
}

func (f *memoryFile) Close() error {
	return f.locked("close", false, func() error {
		f.closed = true
		return nil
	})
}
