using System.Diagnostics;

namespace FCtrans.Client;

/// <summary>Something that was asked of a host.</summary>
/// <param name="Host">What the user calls the host.</param>
/// <param name="What">What was asked, in words.</param>
/// <param name="Took">From the question to the answer, or to giving it up.</param>
/// <param name="Succeeded">Whether there was an answer other than an error.</param>
public readonly record struct HostCall(string Host, string What, TimeSpan Took, bool Succeeded);

/// <summary>
/// Tells of each call to a host when it has ended. Listening is a matter of the asynchronous flow: whoever sets
/// <see cref="Listener"/> hears of the calls that are made further down, on whatever threads, and of nobody else's.
/// </summary>
public static class HostCalls
{
    private static readonly AsyncLocal<Action<HostCall>?> s_listener = new();

    /// <summary>Called on the thread that ends a call; must not throw. Null: nobody listens.</summary>
    public static Action<HostCall>? Listener
    {
        get => s_listener.Value;
        set => s_listener.Value = value;
    }

    /// <summary>Begins a call; disposing the measurement tells of it.</summary>
    internal static Measurement Begin(string host, string what) => new(host, what, s_listener.Value);

    /// <summary>A call that goes on.</summary>
    internal sealed class Measurement(string host, string what, Action<HostCall>? listener) : IDisposable
    {
        private readonly long _began = Stopwatch.GetTimestamp();
        private bool _succeeded;

        /// <summary>Notes that the host has answered, and passes its answer on.</summary>
        public T Answered<T>(T answer)
        {
            _succeeded = true;
            return answer;
        }

        public void Dispose() => listener?.Invoke(new HostCall(host, what, Stopwatch.GetElapsedTime(_began), _succeeded));
    }
}
