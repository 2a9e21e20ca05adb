using Grpc.Core;

namespace FCtrans.Agent.Rpc;

/// <summary>Answers written by work that blocks its thread.</summary>
internal static class StreamWriting
{
    /// <summary>Returns when the transport has taken the message.</summary>
    public static void WriteAndWait<T>(this IServerStreamWriter<T> stream, T message) => stream.WriteAsync(message).GetAwaiter().GetResult();
}
