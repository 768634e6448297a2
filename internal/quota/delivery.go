package quota

// DeliveryLimits are the rates of puts to one delivery stream.
type DeliveryLimits struct {
	Calls   Rate // PutRecord and PutRecordBatch calls a second
	Records Rate // records a second
	Bytes   Rate // bytes of data a second
}

// PublishedDelivery returns the limits that the service documents for its large
// regions.
func PublishedDelivery() DeliveryLimits {
	return DeliveryLimits{Calls: 2000, Records: 500_000, Bytes: 5 << 20}
}

// delivery is the buckets of one delivery stream.
type delivery struct{ calls, records, bytes bucket }

func (d delivery) full(now int64) bool { return int64(max(d.calls, d.records, d.bytes)) <= now }

// Delivery admits one put to a delivery stream and tells how many of its records,
// from the front, are within its rates: all, some, or none, when nothing of the
// call is counted. Without enforcement it is all.
func (l *Limiter) Delivery(id uint64, records [][]byte) int {
	limits := &l.limits.Delivery
	now := l.now().UnixNano()
	n := 0
	t := &l.deliveries[(id*0x9E3779B97F4A7C15)>>58]
	t.update(id, now, func(d delivery) (delivery, bool) {
		calls, ok := d.calls.take(now, 1, limits.Calls, int64(limits.Calls))
		next := d
		for ; ok && n < len(records); n++ {
			r, ok1 := next.records.take(now, 1, limits.Records, int64(limits.Records))
			// A bucket holds at least the largest record.
			b, ok2 := next.bytes.take(now, int64(len(records[n])), limits.Bytes, max(int64(limits.Bytes), 1_024_000))
			if !ok1 || !ok2 {
				break
			}
			next.records, next.bytes = r, b
		}
		if n == 0 && len(records) > 0 {
			return d, false
		}
		next.calls = calls
		return next, true
	})
	l.counts[Deliver].allowed.Add(uint64(n))
	l.counts[Deliver].exceeded.Add(uint64(len(records) - n))
	if !l.enforce {
		return len(records)
	}
	return n
}
