// What to type in a terminal, or in Python, to do what the page does.

const here = () => location.origin;

/** Quote a text for a POSIX shell; a name may contain anything. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const python = JSON.stringify; // a JSON text is a Python literal too

export const getCommand = (bucket, file) => `pymdc get ${quoted(`${named(bucket)}:#${file.hash}`)}`;

export const putCommand = (bucket) => `pymdc put FILE ${quoted(`${named(bucket)}:`)}`;

/** Return the name of a bucket, or its id if the name would read as an option or a path. */
const named = ({ name, id }) => (/^[^-:/][^:/]+$/.test(name ?? "") ? name : id);

export const pythonDownload = (bucket, file) =>
  `${pythonBucket(bucket)}\nfiles.download(${python(file.hash)}, to=${python(file.filename.split(/[\\/]/).pop() || file.hash)})`;

export const pythonUpload = (bucket) => `${pythonBucket(bucket)}\nfiles.upload("FILE")`;

function pythonBucket(bucket) {
  return [
    "import pathlib, pymdc",
    `client = pymdc.Client(${python(here())})`,
    'key_pair = pymdc.ECDSA(private_key=pathlib.Path("you.key").read_text())',
    `files = pymdc.api.Files(${python(bucket.id)}, key_pair, client=client)`,
  ].join("\n");
}

export const curlDownload = (path, token) =>
  `curl -fOJ -H 'x-token: ${token}' ${quoted(here() + path)}`;

export const curlUpload = (bucket, token) =>
  [
    "curl -f -X PUT",
    `-H 'x-token: ${token}'`,
    `-H "x-filesize: $(wc -c < FILE)"`,
    "-F file=@FILE",
    quoted(`${here()}/buckets/${bucket}/files`),
  ].join(" \\\n  ");
