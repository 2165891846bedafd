// The program around a Go script: reads the job from descriptor 3, calls the script's function, answers on descriptor 4.
// It is built once per script, with the script as package inner beside it; the function comes in inner.MillhandEntry.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime/debug"
	"strings"

	"mymod/inner"
)

type job struct {
	Args   map[string]json.RawMessage `json:"args"`
	Params []string                   `json:"params"` // names, in the order of the function's parameters
}

type failure struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	Stack   string `json:"stack,omitempty"`
}

var answers = os.NewFile(4, "answers")
var errorType = reflect.TypeOf((*error)(nil)).Elem()

func send(kind byte, payload []byte) {
	header := make([]byte, 5, 5+len(payload))
	binary.LittleEndian.PutUint32(header, uint32(len(payload)+1))
	header[4] = kind
	if _, err := answers.Write(append(header, payload...)); err != nil {
		fmt.Fprintln(os.Stderr, "the result could not be sent:", err)
		os.Exit(1)
	}
}

func receive() (found job, err error) {
	frames := os.NewFile(3, "frames")
	header := make([]byte, 5)
	if _, err = io.ReadFull(frames, header); err != nil {
		return
	}
	payload := make([]byte, binary.LittleEndian.Uint32(header)-1)
	if _, err = io.ReadFull(frames, payload); err != nil {
		return
	}
	frames.Close()
	err = json.Unmarshal(payload, &found)
	return
}

func fail(name, message, stack string) {
	payload, _ := json.Marshal(failure{name, message, stack})
	send('X', payload)
	os.Exit(1)
}

// Returns the values to call the function with: absent and null ones are the zero values of their types.
func arguments(function reflect.Type, given job) []reflect.Value {
	values := make([]reflect.Value, function.NumIn())
	for i := range values {
		value := reflect.New(function.In(i))
		if i < len(given.Params) {
			if raw, ok := given.Args[given.Params[i]]; ok {
				if err := json.Unmarshal(raw, value.Interface()); err != nil {
					fail("ArgumentError", fmt.Sprintf("can't take argument %s as %s: %s", given.Params[i], function.In(i), err), "")
				}
			}
		}
		values[i] = value.Elem()
	}
	return values
}

func call(function reflect.Value, values []reflect.Value) []reflect.Value {
	defer func() {
		if reason := recover(); reason != nil {
			fail("panic", fmt.Sprint(reason), userFrames(string(debug.Stack())))
		}
	}()
	if function.Type().IsVariadic() {
		return function.CallSlice(values)
	}
	return function.Call(values)
}

// Keeps the frames of the script; each has a line for the function and one for its place.
func userFrames(stack string) string {
	kept := []string{}
	lines := strings.Split(stack, "\n")
	for i := 1; i+1 < len(lines); i += 2 {
		if strings.Contains(lines[i], "/inner.") {
			kept = append(kept, strings.ReplaceAll(lines[i]+"\n"+lines[i+1], "mymod/inner", "inner"))
		}
	}
	return strings.Join(kept, "\n")
}

// The error's type, where it tells more than that it is an error.
func errorName(err error) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", err), "*")
	if strings.HasPrefix(name, "errors.") || strings.HasPrefix(name, "fmt.") {
		return "Error"
	}
	return name
}

// The result is null, the one value, or a list of several; a last result of type error is the job's error.
func answer(function reflect.Type, results []reflect.Value) {
	if last := len(results) - 1; last >= 0 && function.Out(last).Implements(errorType) {
		if !results[last].IsNil() {
			err := results[last].Interface().(error)
			fail(errorName(err), err.Error(), "")
		}
		results = results[:last]
	}
	var result any
	switch len(results) {
	case 0:
	case 1:
		result = results[0].Interface()
	default:
		several := make([]any, len(results))
		for i, each := range results {
			several[i] = each.Interface()
		}
		result = several
	}
	payload, err := json.Marshal(result)
	if err != nil {
		fail("ResultError", "the result can't be written as JSON: "+err.Error(), "")
	}
	send('V', payload)
}

func main() {
	given, err := receive()
	if err != nil {
		os.Exit(0) // the worker went away before it had a job
	}
	send('S', nil)
	function := reflect.ValueOf(inner.MillhandEntry)
	answer(function.Type(), call(function, arguments(function.Type(), given)))
}
