import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseS3Url } from '#lib/s3-url.ts'

test('a bucket alone is one of Amazon, with the credentials of the environment', () => {
  assert.deepEqual(parseS3Url('s3://site-files'), {
    bucket: 'site-files',
    prefix: '',
    endpoint: null,
    region: 'us-east-1',
    pathStyle: false,
    credentials: null,
    publicEndpoint: null,
  })
})

test('every part of the URL is read, and characters that were escaped come back', () => {
  const url =
    's3://KEY:a%2Fb%40c@site.files/www/one/?endpoint=http://10.0.0.1:9000/&region=eu-central-1' +
    '&publicEndpoint=https://files.example.com'
  assert.deepEqual(parseS3Url(url), {
    bucket: 'site.files',
    prefix: 'www/one/',
    endpoint: 'http://10.0.0.1:9000',
    region: 'eu-central-1',
    pathStyle: true,
    credentials: { accessKeyId: 'KEY', secretAccessKey: 'a/b@c' },
    publicEndpoint: 'https://files.example.com',
  })
  assert.equal(parseS3Url('s3://abc?endpoint=http://h&pathStyle=false').pathStyle, false)
})

test('what is wrong with a URL is named', () => {
  for (const [url, message] of [
    ['s3://', /must name a bucket/],
    ['s3:///folder', /must name a bucket/],
    ['s3://No_Bucket', /must name a bucket/],
    ['s3://KEY@bucket', /both KEY and SECRET/],
    ['s3://KEY:SE%CRET@bucket', /written|%25|%XX/],
    ['s3://bucket?endpiont=http://h', /the parameter endpiont; there are endpoint/],
    ['s3://bucket?endpoint=10.0.0.1:9000', /endpoint that is not/],
    ['s3://bucket?endpoint=http://h/path', /endpoint that is not/],
    ['s3://bucket?pathStyle=yes', /pathStyle/],
  ] as const)
    assert.throws(() => parseS3Url(url), message, url)
})
