//go:build !linux

package reliability

import "testing"

type disk struct{ dir string }

func startDisk(t *testing.T, _ int64) *disk {
	t.Log("there is no disk to fill: only Linux is asked for one")
	return nil
}

func (d *disk) fill(int64) error { return nil }
func (d *disk) empty() error     { return nil }
