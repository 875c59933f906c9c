// Package uring sends and receives on many sockets by one system call, through Linux' io_uring. Begin at New.
//
// A system call costs a hundred nanoseconds on one machine and more than a thousand on another, where the
// kernel keeps its page tables apart; a loop that serves many sockets makes two for each message. Here the
// calls of one round are put down in memory that the kernel reads, and carried out together. All of them are
// over when Do returns: none waits, nothing stays under way, and buffers are the caller's again.
//
// Source: io_uring(7), io_uring_setup(2), io_uring_enter(2), linux/io_uring.h. Linux 6.0 is asked for: earlier
// ones have the calls too, but some had them wait where these must not. Where it is missing, or forbidden
// (kernel.io_uring_disabled, seccomp), New says so and callers make single calls.
package uring

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel's interface calls these, in linux/io_uring.h.
const (
	offSQRing = 0
	offCQRing = 0x8000000
	offSQEs   = 0x10000000

	opSend = 26
	opRecv = 27

	enterGetEvents = 1 << 0

	featLinkedFile = 1 << 12 // IORING_FEAT_LINKED_FILE, of Linux 6.0
)

// submission is struct io_uring_sqe.
type submission struct {
	op, flags uint8
	priority  uint16
	fd        int32
	off       uint64
	addr      uint64
	size      uint32
	msgFlags  uint32
	id        uint64
	_         [3]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	id    uint64
	res   int32
	flags uint32
}

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wq uint32
	_                                                                [3]uint32
	sq                                                               struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// A Ring carries out calls in batches. It is one goroutine's at a time.
type Ring struct {
	fd           int
	sq, cq, mem  []byte // mapped
	sqes         []submission
	cqes         []completion
	sqTail       *atomic.Uint32
	cqHead       *atomic.Uint32
	cqTail       *atomic.Uint32
	sqMask, mask uint32

	queued  int
	results []result
	pin     [][]byte // buffers of what is queued: the collector knows nothing of addresses in sqes
}

type result struct {
	n     int
	errno syscall.Errno
}

// New makes a ring for up to size calls at once, a power of two up to 4096. Its error says that there is no
// io_uring here, or none that can do it.
func New(size int) (*Ring, error) {
	var p params
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(size), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("set up io_uring: %w", errno)
	}
	if p.features&featLinkedFile == 0 {
		unix.Close(int(fd))
		return nil, errors.New("set up io_uring: this kernel is older than Linux 6.0")
	}
	r := &Ring{fd: int(fd), results: make([]result, size), pin: make([][]byte, 0, size)}
	if err := r.open(&p); err != nil {
		r.Close()
		return nil, fmt.Errorf("set up io_uring: %w", err)
	}
	if err := r.try(); err != nil {
		r.Close()
		return nil, fmt.Errorf("try io_uring: %w", err)
	}
	return r, nil
}

func (r *Ring) open(p *params) (err error) {
	shared := func(off int64, size uint32) []byte {
		b, e := unix.Mmap(r.fd, off, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err == nil {
			err = e
		}
		return b
	}
	r.sq = shared(offSQRing, p.sq.array+p.sqEntries*4)
	r.cq = shared(offCQRing, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	r.mem = shared(offSQEs, p.sqEntries*uint32(unsafe.Sizeof(submission{})))
	if err != nil {
		return err
	}
	r.sqTail = (*atomic.Uint32)(unsafe.Pointer(&r.sq[p.sq.tail]))
	r.cqHead = (*atomic.Uint32)(unsafe.Pointer(&r.cq[p.cq.head]))
	r.cqTail = (*atomic.Uint32)(unsafe.Pointer(&r.cq[p.cq.tail]))
	r.sqes = unsafe.Slice((*submission)(unsafe.Pointer(&r.mem[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*completion)(unsafe.Pointer(&r.cq[p.cq.cqes])), p.cqEntries)
	r.sqMask, r.mask = p.sqEntries-1, p.cqEntries-1
	// Submissions are taken in the order of their places, always.
	for i := range p.sqEntries {
		*(*uint32)(unsafe.Pointer(&r.sq[p.sq.array+4*i])) = i
	}
	return nil
}

// try proves that the kernel knows the calls.
func (r *Ring) try() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	calls := []func(){
		func() { r.Send(pair[0], []byte("try")) },
		func() { r.Recv(pair[1], make([]byte, 4)) },
	}
	for i, call := range calls {
		call()
		if err := r.Do(); err != nil {
			return err
		}
		if n, errno := r.Result(0); errno != 0 || n != 3 {
			return fmt.Errorf("call %d gave %d bytes, %w", i, n, errno)
		}
	}
	return nil
}

// Close gives the ring back.
func (r *Ring) Close() {
	for _, b := range [][]byte{r.sq, r.cq, r.mem} {
		if b != nil {
			unix.Munmap(b)
		}
	}
	unix.Close(r.fd)
}

// Len is how many calls are queued.
func (r *Ring) Len() int { return r.queued }

// Send queues a send of b, which is not to change until Do. It sends what goes without waiting. More calls
// than the ring's size are not to be queued.
func (r *Ring) Send(fd int, b []byte) {
	r.queue(opSend, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// Recv queues a receive into b of what is there.
func (r *Ring) Recv(fd int, b []byte) { r.queue(opRecv, fd, b, unix.MSG_DONTWAIT) }

func (r *Ring) queue(op uint8, fd int, b []byte, flags uint32) {
	at := (r.sqTail.Load() + uint32(r.queued)) & r.sqMask
	r.sqes[at] = submission{op: op, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), size: uint32(len(b)), msgFlags: flags, id: uint64(r.queued)}
	r.pin = append(r.pin, b)
	r.queued++
}

// Do carries out what is queued. Each call has a result of its own; the error says that the ring is of no
// more use, and that some calls may have been carried out.
func (r *Ring) Do() error {
	n := r.queued
	r.sqTail.Store(r.sqTail.Load() + uint32(n))
	submitted, done, vain := 0, 0, 0
	for done < n {
		// It returns at once: no call waits. So the scheduler need not know.
		k, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n-submitted), uintptr(n-done), enterGetEvents, 0, 0)
		switch errno {
		case 0:
			submitted += int(k)
		case unix.EINTR, unix.EAGAIN, unix.EBUSY:
			if vain++; vain < 1000 { // memory that was short for a moment
				break
			}
			fallthrough
		default:
			return fmt.Errorf("enter io_uring: %w", errno)
		}
		head := r.cqHead.Load()
		for tail := r.cqTail.Load(); head != tail; head++ {
			c := &r.cqes[head&r.mask]
			if c.id >= uint64(n) {
				return errors.New("enter io_uring: an answer to nothing")
			}
			if x := &r.results[c.id]; c.res < 0 {
				*x = result{0, syscall.Errno(-c.res)}
			} else {
				*x = result{int(c.res), 0}
			}
			done++
		}
		r.cqHead.Store(head)
	}
	runtime.KeepAlive(r.pin)
	clear(r.pin)
	r.pin, r.queued = r.pin[:0], 0
	return nil
}

// Result is what the i-th call of the last Do gave: bytes, or an error. EAGAIN: it would have had to wait.
func (r *Ring) Result(i int) (int, syscall.Errno) { return r.results[i].n, r.results[i].errno }
