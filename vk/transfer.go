package vk

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"unsafe"
)

// Transfer is a copy between host and device. Data is as long as Range.
type Transfer struct {
	Range Range
	Data  []byte
}

// Upload copies host data to the device, all transfers in one call, and returns when they are done. The ranges must not
// overlap.
//
// If ctx is done, Upload returns within some tens of milliseconds with an error that wraps ctx.Err(). Data is not used
// after the return, but copies that the device has started run on: the contents of the ranges are undefined until a
// later Upload succeeds. The next transfer waits for those copies first. The same holds for ErrTimeout, when the device
// does not finish within Options.Timeout.
func (d *Device) Upload(ctx context.Context, list ...Transfer) error {
	return d.transfer(ctx, "Upload", list, true)
}

// Download copies device memory to the host, all transfers in one call.
//
// ctx and ErrTimeout end the call as in Upload. The contents of Data are then undefined, but do not change after the
// return.
func (d *Device) Download(ctx context.Context, list ...Transfer) error {
	return d.transfer(ctx, "Download", list, false)
}

func (d *Device) transfer(ctx context.Context, op string, list []Transfer, up bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("vk: %s: %w", op, err)
	}
	if err := d.beginCallOp(op); err != nil {
		return err
	}
	defer d.endCall()
	for i, t := range list {
		err := t.Range.valid(d, nil)
		if err == nil {
			err = t.Range.onDevice()
		}
		if err != nil {
			return fmt.Errorf("vk: %s: transfer %d %w", op, i, err)
		}
		if uint64(len(t.Data)) != t.Range.size {
			return fmt.Errorf("vk: %s: transfer %d: %d bytes of data for %d bytes of %s", op, i, len(t.Data), t.Range.size, t.Range.name())
		}
	}
	if up {
		if err := checkDisjoint(list); err != nil {
			return fmt.Errorf("vk: %s: %w", op, err)
		}
	}
	for i, t := range list {
		if !t.Range.buf.pin() {
			for _, u := range list[:i] {
				u.Range.buf.unpin()
			}
			return fmt.Errorf("vk: %s: transfer %d: %s is %w", op, i, t.Range.name(), ErrClosed)
		}
	}
	err := d.staging.move(ctx, list, up)
	for _, t := range list {
		t.Range.buf.unpin()
	}
	if err != nil {
		return fmt.Errorf("vk: %s: %w", op, err)
	}
	return nil
}

// checkDisjoint checks that no device byte is written twice: the order of the copies is undefined.
func checkDisjoint(list []Transfer) error {
	if len(list) < 2 {
		return nil
	}
	ranges := make([]Range, len(list))
	for i, t := range list {
		ranges[i] = t.Range
	}
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.address(), b.address()) })
	for i, r := range ranges[1:] {
		if ranges[i].address()+ranges[i].size > r.address() {
			return fmt.Errorf("two transfers write bytes of %s from offset %d on", r.name(), r.offset)
		}
	}
	return nil
}

// Bytes returns the memory of a slice without copying it. Devices and this library are little-endian.
func Bytes[T ~float32 | ~int32 | ~uint32 | ~uint16 | ~uint8](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}
