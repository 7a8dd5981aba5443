-- The floor: the bytes of a signed post, written once and sent for ever. Nothing is signed, no certificate is checked.
-- What varies comes as WRK_... from the environment.
wrk.method = "POST"
wrk.path = os.getenv("WRK_PATH")
wrk.body = io.open(os.getenv("WRK_BODY"), "rb"):read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Amz-Date"] = "20250101T000000Z"
wrk.headers["X-Amz-Security-Token"] = os.getenv("WRK_TOKEN")
wrk.headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=" .. os.getenv("WRK_KEY")
  .. "/20250101/eu-west-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date;x-amz-security-token, Signature="
  .. string.rep("0", 64)
