package image

import (
	"bytes"
	"encoding/binary"
)

// segments walks through the segments of a JPEG (ITU T.81, B.1) up to the picture's data.
func segments(data []byte, visit func(marker byte, body []byte) bool) {
	for i := 2; i+4 <= len(data) && data[i] == 0xff; {
		marker := data[i+1]
		if marker == 0xff { // filling
			i++
			continue
		}
		if marker == 0x01 || marker >= 0xd0 && marker <= 0xd8 { // without a body
			i += 2
			continue
		}
		n := int(binary.BigEndian.Uint16(data[i+2:]))
		if marker == 0xda || n < 2 || i+2+n > len(data) {
			return
		}
		if !visit(marker, data[i+4:i+2+n]) {
			return
		}
		i += 2 + n
	}
}

// progressive says whether a JPEG is decoded in passes over all of it. Within a picture's data the
// marker cannot stand; in a comment or a preview it can, and then too much is said rather than too little.
func progressive(data []byte) bool { return bytes.Contains(data, []byte{0xff, 0xc2}) }

// webpSize is the largest width and height that any part of a WebP claims (RFC 9649, 2.5 to 2.7): the
// decoder makes room for what the part itself says, whatever the file's head said.
func webpSize(b []byte) (w, h int) {
	claim := func(pw, ph int) { w, h = max(w, pw), max(h, ph) }
	for i := int64(12); i+8 <= int64(len(b)); {
		body := b[i+8:]
		switch string(b[i : i+4]) {
		case "VP8X":
			if len(body) >= 10 {
				claim(1+(int(body[4])|int(body[5])<<8|int(body[6])<<16), 1+(int(body[7])|int(body[8])<<8|int(body[9])<<16))
			}
		case "VP8 ":
			if len(body) >= 10 {
				claim(int(body[6])|int(body[7]&0x3f)<<8, int(body[8])|int(body[9]&0x3f)<<8)
			}
		case "VP8L":
			if len(body) >= 5 {
				bits := binary.LittleEndian.Uint32(body[1:])
				claim(1+int(bits&0x3fff), 1+int(bits>>14&0x3fff))
			}
		}
		n := int64(binary.LittleEndian.Uint32(b[i+4:]))
		i += 8 + n + n&1
	}
	return w, h
}

// orientation reads EXIF's orientation out of a JPEG (EXIF 2.32, 4.6.4): 1 when there is none.
func orientation(data []byte) int {
	turn := 1
	segments(data, func(marker byte, body []byte) bool {
		tiff, ok := bytes.CutPrefix(body, []byte("Exif\x00\x00"))
		if marker != 0xe1 || !ok {
			return true
		}
		turn = tiffOrientation(tiff)
		return false
	})
	return turn
}

func tiffOrientation(b []byte) int {
	if len(b) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.LittleEndian
	if string(b[:2]) == "MM" {
		order = binary.BigEndian
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return 1
	}
	entries := b[at+2:]
	for range order.Uint16(b[at:]) {
		if len(entries) < 12 {
			return 1
		}
		if order.Uint16(entries) == 0x0112 && order.Uint16(entries[2:]) == 3 {
			if v := int(order.Uint16(entries[8:])); v >= 1 && v <= 8 {
				return v
			}
			return 1
		}
		entries = entries[12:]
	}
	return 1
}

// moves says whether a picture has more than one frame.
func moves(k kind, data []byte) bool {
	switch k {
	case kindGIF:
		return gifFrames(data) > 1
	case kindPNG:
		return hasAnimation(data)
	case kindWebP: // the extended format's flag (RFC 9649, 2.7.1.3)
		return len(data) > 20 && string(data[12:16]) == "VP8X" && data[20]&0x02 != 0
	}
	return false
}

// hasAnimation looks for APNG's acTL before the first data (PNG third edition, 11.3.6).
func hasAnimation(data []byte) bool {
	for i := int64(8); i+8 <= int64(len(data)); {
		switch string(data[i+4 : i+8]) {
		case "acTL":
			return true
		case "IDAT", "IEND":
			return false
		}
		i += 12 + int64(binary.BigEndian.Uint32(data[i:]))
	}
	return false
}

// gifFrames counts the frames of a GIF, up to 2 (GIF89a, appendix B).
func gifFrames(b []byte) int {
	if len(b) < 13 {
		return 0
	}
	table := func(flags byte) int {
		if flags&0x80 == 0 {
			return 0
		}
		return 3 << (flags&7 + 1)
	}
	// blocks skips the data that is cut into blocks.
	blocks := func(i int) int {
		for i < len(b) && b[i] != 0 {
			i += 1 + int(b[i])
		}
		return i + 1
	}
	frames := 0
	for i := 13 + table(b[10]); i < len(b) && frames < 2; {
		switch b[i] {
		case 0x21:
			i = blocks(i + 2)
		case 0x2c:
			frames++
			if i+10 > len(b) {
				return frames
			}
			i = blocks(i + 11 + table(b[i+9]))
		default:
			return frames
		}
	}
	return frames
}
