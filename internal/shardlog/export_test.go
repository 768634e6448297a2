package shardlog

// Gates is how many shards have an entry for appends in flight or a fence.
func (l *Log) Gates() (n int) {
	for i := range l.fences {
		s := &l.fences[i]
		s.mu.Lock()
		n += len(s.gates)
		s.mu.Unlock()
	}
	return n
}

// Waiting is how many shards have a channel for those who tail them.
func (l *Log) Waiting() (n int) {
	for i := range l.tails.stripes {
		s := &l.tails.stripes[i]
		s.mu.Lock()
		n += len(s.waiting)
		s.mu.Unlock()
	}
	return n
}
