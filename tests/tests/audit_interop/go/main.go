// Reads a log of ours with Go's golang.org/x/mod/sumdb/note and tlog, checks our proofs, and leaves a log of its own
// for us to read. What is in the folders stands in ../python/audit.py.
package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const cosignatureTime = 1700000000

func main() {
	log.SetFlags(0)
	log.SetPrefix("refused: ")
	ours, theirs := os.Args[1], os.Args[2]
	write(theirs, read(ours))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func require(condition bool, what string) {
	if !condition {
		log.Fatal(what)
	}
}

// The package knows no cosignatures; this is what the specification has a verifier do, written from it.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) cosigner {
	parts := strings.SplitN(vkey, "+", 3)
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	check(err)
	key, err := base64.StdEncoding.DecodeString(parts[2])
	check(err)
	require(len(key) == 33 && key[0] == 4, "no key of a witness")
	return cosigner{parts[0], uint32(hash), ed25519.PublicKey(key[1:])}
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }

func (c cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+64 {
		return false
	}
	time := binary.BigEndian.Uint64(signature)
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, text)
	return time == cosignatureTime && ed25519.Verify(c.key, []byte(message), signature[8:])
}

// A folder of tlog-tiles.
type folder string

func (f folder) Height() int { return 8 }

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		content, err := os.ReadFile(f.path(tile))
		if err != nil {
			return nil, err
		}
		data = append(data, content)
	}
	return data, nil
}

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

// Go puts the height into the path, which the C2SP format does not.
func (f folder) path(tile tlog.Tile) string {
	return filepath.Join(string(f), strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
}

func parseHash(text string) tlog.Hash {
	var hash tlog.Hash
	bytes, err := hex.DecodeString(text)
	check(err)
	require(len(bytes) == len(hash), "no hash")
	copy(hash[:], bytes)
	return hash
}

func read(ours string) int64 {
	keys, err := os.ReadFile(filepath.Join(ours, "keys"))
	check(err)
	vkeys := strings.Fields(string(keys))
	verifier, err := note.NewVerifier(vkeys[0])
	check(err)
	signed, err := os.ReadFile(filepath.Join(ours, "checkpoint"))
	check(err)
	opened, err := note.Open(signed, note.VerifierList(verifier, newCosigner(vkeys[1])))
	check(err)
	require(len(opened.Sigs) == 2 && len(opened.UnverifiedSigs) == 0, "not signed by both")

	lines := strings.Split(opened.Text, "\n")
	require(len(lines) == 4 && lines[0] == verifier.Name(), "no checkpoint of that log")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)

	// Reads tiles and authenticates them by the signed root.
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, folder(ours))
	proofs, err := os.ReadFile(filepath.Join(ours, "proofs"))
	check(err)
	for _, line := range strings.Split(strings.TrimSpace(string(proofs)), "\n") {
		words := strings.Split(line, " ")
		at, err := strconv.ParseInt(words[1], 10, 64)
		check(err)
		require(words[2] == lines[1], "proof of another size")
		first := parseHash(words[3])
		var proof, own []tlog.Hash
		for _, word := range words[4:] {
			proof = append(proof, parseHash(word))
		}
		if words[0] == "inclusion" {
			require(first == tlog.RecordHash([]byte(fmt.Sprintf("entry %d", at))), line)
			check(tlog.CheckRecord(proof, size, root, at, first))
			own, err = tlog.ProveRecord(size, at, hashes)
		} else {
			check(tlog.CheckTree(proof, size, root, at, first))
			own, err = tlog.ProveTree(size, at, hashes)
		}
		check(err)
		require(len(own) == len(proof), line)
		for i := range own {
			require(own[i] == proof[i], line)
		}
	}
	return size
}

type stored map[int64]tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, index := range indexes {
		hashes = append(hashes, s[index])
	}
	return hashes, nil
}

func write(theirs string, size int64) {
	hashes := stored{}
	for index := int64(0); index < size; index++ {
		added, err := tlog.StoredHashes(index, []byte(fmt.Sprintf("entry %d", index)), hashes)
		check(err)
		first := tlog.StoredHashIndex(0, index)
		for i, hash := range added {
			hashes[first+int64(i)] = hash
		}
	}
	for _, tile := range tlog.NewTiles(8, 0, size) {
		data, err := tlog.ReadTileData(tile, hashes)
		check(err)
		path := folder(theirs).path(tile)
		check(os.MkdirAll(filepath.Dir(path), 0o755))
		check(os.WriteFile(path, data, 0o644))
	}
	root, err := tlog.TreeHash(size, hashes)
	check(err)

	const origin, witness = "example.com/go/log", "example.com/go/witness"
	secret, vkey, err := note.GenerateKey(rand.Reader, origin)
	check(err)
	signer, err := note.NewSigner(secret)
	check(err)
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, root)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	check(err)

	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", cosignatureTime, text)
	typed := append([]byte{4}, public...)
	sum := sha256.Sum256(append([]byte(witness+"\n"), typed...))
	id := binary.BigEndian.Uint32(sum[:])
	wkey := fmt.Sprintf("%s+%08x+%s", witness, id, base64.StdEncoding.EncodeToString(typed))
	line := binary.BigEndian.AppendUint32(nil, id)
	line = binary.BigEndian.AppendUint64(line, cosignatureTime)
	line = append(line, ed25519.Sign(private, []byte(message))...)
	signed = append(signed, fmt.Sprintf("\u2014 %s %s\n", witness, base64.StdEncoding.EncodeToString(line))...)
	check(os.WriteFile(filepath.Join(theirs, "checkpoint"), signed, 0o644))
	check(os.WriteFile(filepath.Join(theirs, "keys"), []byte(vkey+"\n"+wkey+"\n"), 0o644))
}
