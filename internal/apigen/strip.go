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
	"slices"
	"strings"
)

// Model is one model that millrace keeps.
type Model struct {
	// Folder is botocore's name of it.
	Folder string
	// Name is its file in model/, without the extension.
	Name string
	// Operations are those that are served. Nil keeps the whole model; otherwise
	// every other operation is dropped, and each shape that only those refer to.
	Operations []string
}

// Models lists the models that millrace keeps.
var Models = []Model{
	{Folder: "firehose", Name: "firehose"},
	{Folder: "glue", Name: "glue", Operations: []string{
		"BatchCreatePartition", "BatchDeleteTable", "CreateDatabase", "CreatePartition", "CreateTable", "DeleteDatabase",
		"DeleteTable", "DeleteTableVersion", "GetDatabase", "GetDatabases", "GetPartition", "GetPartitions", "GetTable",
		"GetTableVersion", "GetTableVersions", "GetTables", "GetTags", "SearchTables", "TagResource", "UntagResource",
		"UpdateDatabase", "UpdateTable",
	}},
	{Folder: "kinesis", Name: "kinesis"},
	{Folder: "kinesis-video-archived-media", Name: "kinesis-video-archived-media"},
	{Folder: "kinesis-video-media", Name: "kinesis-video-media"},
	{Folder: "kinesis-video-signaling", Name: "kinesis-video-signaling"},
	{Folder: "kinesis-video-webrtc-storage", Name: "kinesis-video-webrtc-storage"},
	{Folder: "kinesisanalytics", Name: "kinesisanalytics"},
	{Folder: "kinesisanalyticsv2", Name: "kinesisanalyticsv2"},
	{Folder: "kinesisvideo", Name: "kinesisvideo"},
	{Folder: "lambda", Name: "lambda", Operations: []string{
		"GetFunction", "GetFunctionConfiguration", "Invoke", "ListFunctions",
	}},
	{Folder: "logs", Name: "logs", Operations: []string{
		"CreateLogGroup", "CreateLogStream", "DeleteLogGroup", "DeleteLogStream", "DeleteRetentionPolicy", "DescribeLogGroups",
		"DescribeLogStreams", "FilterLogEvents", "GetLogEvents", "ListTagsForResource", "ListTagsLogGroup", "PutLogEvents",
		"PutRetentionPolicy", "TagLogGroup", "TagResource", "UntagLogGroup", "UntagResource",
	}},
}

// Strip takes the models out of a botocore wheel, drops all prose and what is not
// served, and writes them to dir, one file a model.
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
	for _, m := range Models {
		f := newest[m.Folder]
		if f == nil {
			return fmt.Errorf("%s: no model %s", filepath.Base(wheel), m.Folder)
		}
		raw, err := readGzip(f)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		v, err := parseJSON(raw)
		if err != nil {
			return fmt.Errorf("parse %s: %w", f.Name, err)
		}
		v = stripProse(v)
		if m.Operations != nil {
			if v, err = keepOperations(v, m.Operations); err != nil {
				return fmt.Errorf("filter %s: %w", f.Name, err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, m.Name+".json"), formatJSON(v), 0o644); err != nil {
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

// keepOperations drops all operations but those named, and every shape that none
// of them leads to.
func keepOperations(v any, names []string) (any, error) {
	root, ok := v.(object)
	if !ok {
		return nil, fmt.Errorf("not an object")
	}
	all, shapes := root.obj("operations"), root.obj("shapes")
	operations := object{}
	for _, f := range all {
		if slices.Contains(names, f.key) {
			operations = append(operations, f)
		}
	}
	for _, name := range names {
		if operations.get(name) == nil {
			return nil, fmt.Errorf("no operation %s", name)
		}
	}
	needed := map[string]bool{}
	var need func(v any)
	need = func(v any) {
		switch v := v.(type) {
		case object:
			for _, f := range v {
				if name, ok := f.value.(string); ok && f.key == "shape" {
					if !needed[name] {
						needed[name] = true
						need(shapes.get(name))
					}
					continue
				}
				need(f.value)
			}
		case []any:
			for _, e := range v {
				need(e)
			}
		}
	}
	need(operations)
	kept := object{}
	for _, f := range shapes {
		if needed[f.key] {
			kept = append(kept, f)
		}
	}
	out := object{}
	for _, f := range root {
		switch f.key {
		case "operations":
			f.value = operations
		case "shapes":
			f.value = kept
		}
		out = append(out, f)
	}
	return out, nil
}
