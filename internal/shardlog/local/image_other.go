//go:build !unix

package local

func allocateImage(size int) (image []byte, mapped bool) { return heapImage(size), false }
func freeImage([]byte)                                   {}
