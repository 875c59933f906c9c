package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"net/http"

	"github.com/gen2brain/avif"
	"github.com/gen2brain/webp"
	xwebp "golang.org/x/image/webp"
)

// kind is a format of pictures, by its usual suffix.
type kind string

const (
	kindJPEG kind = "jpg"
	kindPNG  kind = "png"
	kindGIF  kind = "gif"
	kindWebP kind = "webp"
	kindAVIF kind = "avif"
)

func (k kind) mime() string {
	if k == kindJPEG {
		return "image/jpeg"
	}
	return "image/" + string(k)
}

// sniff tells a format by the first bytes, never by a name or a header: "" for what is none of ours.
func sniff(b []byte) kind {
	at := func(i int, s string) bool { return len(b) >= i+len(s) && string(b[i:i+len(s)]) == s }
	switch {
	case at(0, "\xff\xd8\xff"):
		return kindJPEG
	case at(0, "\x89PNG\r\n\x1a\n"):
		return kindPNG
	case at(0, "GIF87a"), at(0, "GIF89a"):
		return kindGIF
	case at(0, "RIFF") && at(8, "WEBP"):
		return kindWebP
	case at(4, "ftypavif"), at(4, "ftypavis"):
		return kindAVIF
	}
	return ""
}

// errPicture is for a source that cannot be read.
var errPicture = refuse(http.StatusBadRequest, "the source is no picture that can be read: JPEG, PNG, GIF, WebP and AVIF are")

// transform makes a source at most width pixels wide, in a format ("webp", "avif", or "" for the
// source's own). It never enlarges. Moving pictures, and AVIF, are passed on as they are.
func transform(data []byte, width, quality int, format string, mostPixels int) ([]byte, kind, error) {
	k := sniff(data)
	if k == "" {
		return nil, "", errPicture
	}
	if k == kindAVIF || moves(k, data) {
		return data, k, nil
	}
	if err := checkSize(k, data, mostPixels); err != nil {
		return nil, "", err
	}
	src, err := decode(k, data)
	if err != nil || src.Bounds().Empty() { // a GIF may have a frame of no pixels
		return nil, "", errPicture
	}
	turn := 1
	if k == kindJPEG {
		turn = orientation(data)
	}
	w, h := src.Bounds().Dx(), src.Bounds().Dy()
	if turn >= 5 {
		w, h = h, w
	}
	toW := min(width, w)
	toH := max(1, (h*toW+w/2)/w)
	small := toW < w
	if turn >= 5 {
		toW, toH = toH, toW
	}
	dst := orient(shrink(src, toW, toH), turn)
	out, made, err := encode(dst, k, format, quality)
	if err != nil {
		return nil, "", fmt.Errorf("make picture: %w", err)
	}
	if !small && turn == 1 && len(data) <= len(out) && (k != kindWebP || format != "") {
		return data, k, nil // nothing is gained
	}
	return out, made, nil
}

// checkSize refuses what would take too much memory, by what the header alone says.
func checkSize(k kind, data []byte, most int) error {
	var cfg image.Config
	var err error
	r := bytes.NewReader(data)
	switch k {
	case kindJPEG:
		cfg, err = jpeg.DecodeConfig(r)
	case kindPNG:
		cfg, err = png.DecodeConfig(r)
	case kindGIF:
		cfg, err = gif.DecodeConfig(r)
	case kindWebP:
		cfg, err = xwebp.DecodeConfig(r)
		w, h := webpSize(data)
		cfg.Width, cfg.Height = max(cfg.Width, w), max(cfg.Height, h)
	}
	if err != nil || cfg.Width <= 0 || cfg.Height <= 0 {
		return errPicture
	}
	weight := int64(1)
	if cfg.ColorModel == color.NRGBA64Model || cfg.ColorModel == color.RGBA64Model || cfg.ColorModel == color.Gray16Model ||
		k == kindPNG && len(data) > 28 && data[28] != 0 || k == kindJPEG && progressive(data) {
		weight = 2
	}
	if int64(cfg.Width)*int64(cfg.Height)*weight > int64(most) {
		return refuse(http.StatusRequestEntityTooLarge, "the picture is too large: %d × %d pixels, of at most %d million", cfg.Width, cfg.Height, int64(most)/weight/1_000_000)
	}
	return nil
}

func decode(k kind, data []byte) (image.Image, error) {
	r := bytes.NewReader(data)
	switch k {
	case kindJPEG:
		return jpeg.Decode(r)
	case kindPNG:
		return png.Decode(r)
	case kindGIF:
		return gif.Decode(r)
	case kindWebP:
		return xwebp.Decode(r)
	}
	return nil, errors.New("unknown format")
}

// encode writes a picture. Without a format it becomes what every browser knows: JPEG, or PNG where the
// source was one or something is transparent.
func encode(m *image.RGBA, source kind, format string, quality int) ([]byte, kind, error) {
	var b bytes.Buffer
	var k kind
	var err error
	opaque := m.Opaque()
	switch {
	case format == "webp":
		k = kindWebP
		err = webp.Encode(&b, straight(m, opaque), webp.Options{Quality: quality, Method: 3})
	case format == "avif":
		k = kindAVIF
		// On libavif's scale the same number is better and larger than on the others'.
		err = avif.Encode(&b, m, avif.Options{Quality: max(1, quality*4/5), QualityAlpha: quality, Speed: 9, ChromaSubsampling: image.YCbCrSubsampleRatio420})
	case source == kindPNG || source == kindGIF || !opaque:
		k = kindPNG
		err = png.Encode(&b, m)
	default:
		k = kindJPEG
		err = jpeg.Encode(&b, m, &jpeg.Options{Quality: quality})
	}
	return b.Bytes(), k, err
}

// straight is a picture with its colours not multiplied by alpha, as the WebP encoder takes them.
func straight(m *image.RGBA, opaque bool) *image.NRGBA {
	out := &image.NRGBA{Pix: m.Pix, Stride: m.Stride, Rect: m.Rect}
	if !opaque {
		out = image.NewNRGBA(m.Rect)
		draw.Draw(out, m.Rect, m, m.Rect.Min, draw.Src)
	}
	return out
}

// shrink averages areas of src into a picture of w by h pixels, neither larger than src's. Each pixel of
// src counts by the share of it that falls into the new one. It holds two rows besides the result, where
// filters that are a little sharper hold a copy of src in floating point: bombs are made of that.
func shrink(src image.Image, w, h int) *image.RGBA {
	b := src.Bounds()
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	if b.Dx() == w && b.Dy() == h {
		draw.Draw(dst, dst.Rect, src, b.Min, draw.Src)
		return dst
	}
	row := image.NewRGBA(image.Rect(0, 0, b.Dx(), 1))
	narrow, sum := make([]float32, w*4), make([]float32, w*4)
	stepX, stepY := float64(b.Dx())/float64(w), float64(b.Dy())/float64(h)
	y, left := 0, stepY // the row of dst being summed, and what of it is still to come
	for sy := range b.Dy() {
		draw.Draw(row, row.Rect, src, image.Pt(b.Min.X, b.Min.Y+sy), draw.Src)
		narrowRow(narrow, row.Pix, b.Dx(), w, stepX)
		for rest := 1.0; rest > 1e-9 && y < h; {
			part := min(rest, left)
			for i, v := range narrow {
				sum[i] += v * float32(part)
			}
			rest -= part
			if left -= part; left <= 1e-9 || sy == b.Dy()-1 && rest <= 1e-9 {
				writeRow(dst.Pix[y*dst.Stride:], sum, float32(stepY))
				y, left = y+1, stepY
			}
		}
	}
	return dst
}

// narrowRow averages a row of n pixels into w.
func narrowRow(out []float32, pix []byte, n, w int, step float64) {
	clear(out)
	x, left := 0, step
	for sx := range n {
		p := pix[sx*4 : sx*4+4 : sx*4+4]
		for rest := 1.0; rest > 1e-9 && x < w; {
			part := min(rest, left)
			f := float32(part / step)
			o := out[x*4 : x*4+4 : x*4+4]
			o[0] += float32(p[0]) * f
			o[1] += float32(p[1]) * f
			o[2] += float32(p[2]) * f
			o[3] += float32(p[3]) * f
			rest -= part
			if left -= part; left <= 1e-9 {
				x, left = x+1, step
			}
		}
	}
}

// writeRow rounds the sums into a row and clears them. A colour never exceeds its alpha.
func writeRow(pix []byte, sum []float32, step float32) {
	for i := 0; i < len(sum); i += 4 {
		a := byte(min(255, sum[i+3]/step+0.5))
		for c := range 3 {
			pix[i+c] = min(a, byte(min(255, sum[i+c]/step+0.5)))
		}
		pix[i+3] = a
	}
	clear(sum)
}

// orient turns a picture as EXIF's orientation (1 to 8) says.
func orient(m *image.RGBA, turn int) *image.RGBA {
	if turn <= 1 || turn > 8 {
		return m
	}
	w, h := m.Rect.Dx(), m.Rect.Dy()
	outW, outH := w, h
	if turn >= 5 {
		outW, outH = h, w
	}
	out := image.NewRGBA(image.Rect(0, 0, outW, outH))
	for y := range outH {
		for x := range outW {
			sx, sy := x, y
			switch turn {
			case 2:
				sx = w - 1 - x
			case 3:
				sx, sy = w-1-x, h-1-y
			case 4:
				sy = h - 1 - y
			case 5:
				sx, sy = y, x
			case 6:
				sx, sy = y, h-1-x
			case 7:
				sx, sy = w-1-y, h-1-x
			case 8:
				sx, sy = w-1-y, x
			}
			binary.NativeEndian.PutUint32(out.Pix[y*out.Stride+x*4:], binary.NativeEndian.Uint32(m.Pix[sy*m.Stride+sx*4:]))
		}
	}
	return out
}
