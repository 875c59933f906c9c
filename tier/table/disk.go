package table

import (
	"encoding/binary"
	"errors"

	"tenfold/tier/table/attr"
)

// An item in the log, in a table, an index or a backup: its size as DynamoDB counts it, its size by which pages
// are cut, and the item in attr's compact form. The sizes stand before it so that who only counts or copies
// need not read the item.

var errItem = errors.New("an item in the log cannot be read")

// encode is an item as it stands in the log.
func (d *definition) encode(item attr.Item) []byte {
	b := binary.AppendUvarint(make([]byte, 0, 256), uint64(item.Size()))
	b = binary.AppendUvarint(b, uint64(stored(item, d.Sort)))
	return item.AppendBinary(b)
}

// packed is an item of the log that was not read yet. It is good as long as the bytes are that it came from.
type packed struct {
	size, stored int
	item         []byte
}

func unpack(raw []byte) (p packed, err error) {
	size, n := binary.Uvarint(raw)
	if n <= 0 {
		return p, errItem
	}
	onPage, m := binary.Uvarint(raw[n:])
	if m <= 0 {
		return p, errItem
	}
	return packed{int(size), int(onPage), raw[n+m:]}, nil
}

// decode reads an item of the log.
func decode(raw []byte) (attr.Item, error) {
	p, err := unpack(raw)
	if err != nil {
		return nil, err
	}
	return attr.ParseBinary(p.item)
}
