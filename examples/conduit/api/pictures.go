package main

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// pictureFor is how long the URL of a picture works: to store it, or to see it.
const pictureFor = 10 * time.Minute

// pictureTypes are what browsers show as pictures and run nothing in.
var pictureTypes = map[string]bool{"image/jpeg": true, "image/png": true, "image/webp": true, "image/gif": true}

// pictures are those of users, in a bucket. Their bytes do not come by here: browsers store and fetch them by URLs
// that are signed for one picture and a while.
type pictures struct {
	sign   *s3.PresignClient // nil: there is no bucket
	bucket string
}

// at has URLs signed for the host that the browser asked, which leads to the bucket below its name.
func at(host string) func(*s3.PresignOptions) {
	return func(p *s3.PresignOptions) {
		p.Expires = pictureFor
		p.ClientOptions = append(p.ClientOptions, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = aws.String("http://"+host), true })
	}
}

// local is a URL without its host, so that it is of the page's own, with or without TLS.
func local(signed string) (string, error) {
	u, err := url.Parse(signed)
	if err != nil {
		return "", err
	}
	return u.RequestURI(), nil
}

// put is where a browser may store one picture.
func (p *pictures) put(ctx context.Context, host, key, kind string) (string, error) {
	r, err := p.sign.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &p.bucket, Key: &key, ContentType: &kind}, at(host))
	if err != nil {
		return "", err
	}
	return local(r.URL)
}

// get is where a browser sees one.
func (p *pictures) get(ctx context.Context, host, key string) (string, error) {
	r, err := p.sign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &p.bucket, Key: &key}, at(host))
	if err != nil {
		return "", err
	}
	return local(r.URL)
}

// addPicture answers where to store a picture, and what its address will be.
func (a *api) addPicture(r *http.Request, viewer int64) (any, error) {
	var in struct{ Type string }
	if err := read(r, "picture", &in); err != nil {
		return nil, err
	}
	if !pictureTypes[in.Type] {
		return nil, invalid("picture", "is neither JPEG, PNG, WebP nor GIF")
	}
	if a.pictures.sign == nil {
		return nil, invalid("picture", "cannot be stored here: write its URL instead")
	}
	key := strconv.FormatInt(viewer, 10) + "/" + rand.Text()
	put, err := a.pictures.put(r.Context(), r.Host, key, in.Type)
	if err != nil {
		return nil, err
	}
	return map[string]any{"picture": map[string]string{"put": put, "image": "/api/pictures/" + key}}, nil
}

// picture leads a browser to a picture: its address stays, while what is signed ends.
func (a *api) picture(w http.ResponseWriter, r *http.Request) {
	if a.pictures.sign == nil {
		http.NotFound(w, r)
		return
	}
	to, err := a.pictures.get(r.Context(), r.Host, r.PathValue("key"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Cache-Control", "private, max-age="+strconv.Itoa(int(pictureFor.Seconds()/2)))
	http.Redirect(w, r, to, http.StatusFound)
}
