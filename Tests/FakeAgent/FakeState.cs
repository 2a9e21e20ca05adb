using FCtrans.Contracts;
using Google.Protobuf;
using Grpc.Core;

namespace FCtrans.FakeAgent;

/// <summary>
/// All that the fake knows lies in files in its home, so that a test can arrange and look: host.json, vms.json (a
/// ListVmsReply), watch (a WorkerStatus in JSON a line), fail-METHOD or fail-METHOD-Role (a status code and a text), calls
/// (what was called), workers/ID-Role (specifications).
/// </summary>
internal sealed class FakeState(string home)
{
    public string Path(string name) => System.IO.Path.Combine(home, name);

    public T Read<T>(string name)
        where T : IMessage, new() => JsonParser.Default.Parse<T>(File.Exists(Path(name)) ? File.ReadAllText(Path(name)) : "{}");

    public void Called(string method, string detail = "")
    {
        File.AppendAllText(Path("calls"), $"{method} {detail}".Trim() + "\n");
        foreach (string name in (string[])[$"fail-{method}", $"fail-{method}-{detail}"])
        {
            if (File.Exists(Path(name)))
            {
                string[] parts = File.ReadAllText(Path(name)).Split(' ', 2);
                throw new RpcException(new Status(Enum.Parse<StatusCode>(parts[0]), parts[1]));
            }
        }
    }

    public string WorkerPath(string splitId, WorkerRole role)
    {
        Directory.CreateDirectory(Path("workers"));
        return Path($"workers/{splitId}-{role}");
    }
}
