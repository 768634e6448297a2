package apigen

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Models names the models that millrace keeps, as botocore's folders spell them.
var Models = []string{
	"firehose",
	"kinesis",
	"kinesis-video-archived-media",
	"kinesis-video-media",
	"kinesis-video-signaling",
	"kinesis-video-webrtc-storage",
	"kinesisanalytics",
	"kinesisanalyticsv2",
	"kinesisvideo",
}

// Strip takes the models out of a botocore wheel, drops all prose and writes
// them to dir, one file a model.
func Strip(wheel, dir string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("open wheel: %w", err)
	}
	defer z.Close()
	newest := map[string]*zip.File{}
	for _, f := range z.File {
		// botocore/data/kinesis/2013-12-02/service-2.json.gz; the last version wins.
		parts := strings.Split(f.Name, "/")
		if len(parts) == 5 && parts[1] == "data" && parts[4] == "service-2.json.gz" {
			if old := newest[parts[2]]; old == nil || path.Dir(old.Name) < path.Dir(f.Name) {
				newest[parts[2]] = f
			}
		}
	}
	for _, name := range Models {
		f := newest[name]
		if f == nil {
			return fmt.Errorf("%s: no model %s", filepath.Base(wheel), name)
		}
		raw, err := readGzip(f)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		v, err := parseJSON(raw)
		if err != nil {
			return fmt.Errorf("parse %s: %w", f.Name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), formatJSON(stripProse(v)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func readGzip(f *zip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	g, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = io.Copy(&b, io.LimitReader(g, 64<<20))
	return b.Bytes(), err
}

// stripProse drops explanations. A member may itself be called documentation;
// its value is then an object and stays.
func stripProse(v any) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for _, f := range v {
			if _, text := f.value.(string); text {
				switch f.key {
				case "documentation", "documentationUrl", "deprecatedMessage":
					continue
				}
			}
			out = append(out, field{f.key, stripProse(f.value)})
		}
		return out
	case []any:
		for i := range v {
			v[i] = stripProse(v[i])
		}
	}
	return v
}
