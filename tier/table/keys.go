package table

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"strings"

	"tenfold/internal/kv"
	"tenfold/tier/table/attr"
)

// Keys in the log, each after kv.Tables:
//
//	'm' account '/' name                                          a table's definition
//	'd' table hash partition-key [sort-key]                       an item
//	'x' table index hash key-of-the-index… tie key-of-the-table   an item as an index has it
//	'e' table moment key-of-the-table                             when an item expires
//	's' table number                                              a record of the table's stream
//	'u' table moment number                                       what an item was before a change, for point-in-time recovery
//	'b' account '/' id                                            a backup's description
//	'c' backup …                                                  an item of a backup, as under 'd'
//	't' account '/' token                                         an answered transaction
//	'o' account '/' id                                            an export
//	'i' account '/' id                                            an import
//	'n' table                                                     how many items and bytes it holds
//
// table and backup are four bytes, index is two, numbers and moments are eight; all are big-endian. hash is
// three bytes of the MD5 of the partition key: Scan goes by it, and segments are cut by it.
const (
	keyMeta   = 'm'
	keyItem   = 'd'
	keyIndex  = 'x'
	keyExpiry = 'e'
	keyStream = 's'
	keyUndo   = 'u'
	keyBackup = 'b'
	keyCopy   = 'c'
	keyToken  = 't'
	keyExport = 'o'
	keyImport = 'i'
	keyCount  = 'n'
)

// hashLen is how many bytes of a key say where its partition is in the order of Scan.
const hashLen = 3

func key(kind byte, table uint32) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, 64), kv.Tables, kind), table)
}

func numbered(kind byte, table uint32, n uint64) []byte {
	return binary.BigEndian.AppendUint64(key(kind, table), n)
}

func metaKey(p place) []byte {
	return append([]byte{kv.Tables, keyMeta}, p.account+"/"+p.name...)
}

func named(kind byte, account, name string) []byte {
	return append([]byte{kv.Tables, kind}, account+"/"+name...)
}

// after is the first key that does not begin with b.
func after(b []byte) []byte {
	out := bytes.Clone(b)
	for i := len(out) - 1; i >= 0; i-- {
		if out[i]++; out[i] != 0 {
			return out[:i+1]
		}
	}
	return nil
}

// appendHash appends the place of a partition in the order of Scan.
func appendHash(b []byte, partition ...attr.Value) []byte {
	h := md5.New()
	h.Write([]byte("Outliers")) // as DynamoDB's own order was found to begin
	for _, v := range partition {
		switch v.Kind {
		case attr.S:
			h.Write([]byte(v.Text))
		case attr.B:
			h.Write(v.Bytes)
		default:
			h.Write(appendNumber(nil, v.Text))
		}
	}
	var sum [md5.Size]byte
	return append(b, h.Sum(sum[:0])[:hashLen]...)
}

// appendNumber appends a number in the form over which DynamoDB's hash was found to go: an exponent of a
// hundred, then digits by two, complemented where it is negative.
func appendNumber(b []byte, text string) []byte {
	text, negative := strings.CutPrefix(text, "-")
	whole, fraction, _ := strings.Cut(text, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return append(b, 0x80)
	}
	point := len(strings.TrimLeft(whole, "0")) // of 0.digits
	if point == 0 {
		point = len(strings.TrimLeft(fraction, "0")) - len(fraction)
	}
	digits = strings.TrimRight(digits, "0")
	if point%2 != 0 {
		point++
		digits = "0" + digits
	}
	if len(digits)%2 != 0 {
		digits += "0"
	}
	first := byte(point/2 - 64)
	if negative {
		first = ^first
	}
	b = append(b, first)
	for i := 0; i < len(digits); i += 2 {
		pair := (digits[i]-'0')*10 + digits[i+1] - '0'
		if negative {
			b = append(b, 101-pair)
		} else {
			b = append(b, pair+1)
		}
	}
	if negative && len(digits)/2 < 20 {
		b = append(b, 102)
	}
	return b
}

// primary is the key of an item without what stands before it in the log: hash, partition key, sort key.
func (d *definition) primary(item attr.Item) []byte {
	b := make([]byte, 0, 64)
	b = appendHash(b, item[d.Hash])
	b = attr.AppendKey(b, item[d.Hash])
	if d.Sort != "" {
		b = attr.AppendKey(b, item[d.Sort])
	}
	return b
}

func (d *definition) itemKey(primary []byte) []byte { return append(key(keyItem, d.ID), primary...) }

// indexKey is where an index has an item; ok is false when the item is not in it.
func (d *definition) indexKey(x *index, item attr.Item, primary []byte) (k []byte, ok bool) {
	for _, names := range [][]string{x.Hash, x.Sort} {
		for _, n := range names {
			v, there := item[n]
			if !there || v.Kind != d.Types[n] {
				return nil, false
			}
		}
	}
	b := d.indexPrefix(x)
	hash := make([]attr.Value, len(x.Hash))
	for i, n := range x.Hash {
		hash[i] = item[n]
	}
	b = appendHash(b, hash...)
	for _, v := range hash {
		b = attr.AppendKey(b, v)
	}
	for _, n := range x.Sort {
		b = attr.AppendKey(b, item[n])
	}
	return d.appendTie(b, item, primary), true
}

// appendTie appends what tells apart the items that an index has under one key, in the order in which
// DynamoDB was found to give them: by a hash of the table's key.
func (d *definition) appendTie(b []byte, item attr.Item, primary []byte) []byte {
	if d.Sort == "" {
		return append(b, primary...)
	}
	b = appendHash(b, item[d.Hash], item[d.Sort])
	return append(b, primary...)
}

func (d *definition) indexPrefix(x *index) []byte {
	return binary.BigEndian.AppendUint16(key(keyIndex, d.ID), x.No)
}
