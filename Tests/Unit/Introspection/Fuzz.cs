using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

/// <summary>
/// Mutates inputs and keeps those that lead to something new, starting from those kept before (Corpus/KIND-*.bin). Some hundred inputs in a
/// run of the tests; as long as FCTRANS_FUZZ_SECONDS says otherwise, and then what is new goes to the directory FCTRANS_FUZZ_KEEP.
/// </summary>
internal static partial class Fuzz
{
    /// <summary>Time that one input may take; a sound one takes milliseconds.</summary>
    public static readonly TimeSpan Limit = TimeSpan.FromSeconds(10);

    private const int MaxSeeds = 256;

    private static readonly ulong[] s_words =
    [
        0, 1, 7, 0x63, 0xe3, 0x80, 0xfff, 0x1000, 0x7fff_ffff, 0xffff_ff7f, 0x8000_0000, 0xffff_ffff, 0xffff_ffff_8000_0000, 0xffff_8880_0000_0000,
        0xffff_ea00_0000_0000, 0x000f_ffff_ffff_f0e3, 0x000f_ffff_ffff_f063, 0x8000_0000_0000_0000, ulong.MaxValue, ulong.MaxValue - 0xfff, 0x1_0000_0063,
    ];

    private static string Directory => Path.Combine(AppContext.BaseDirectory, "Introspection", "Corpus");

    /// <summary>The names of the inputs kept of one kind.</summary>
    public static TheoryData<string> Corpus(string kind) => [.. Names(kind)];

    public static IEnumerable<string> Names(string kind)
        => System.IO.Directory.GetFiles(Directory, kind + "-*.bin").Select(file => Path.GetFileName(file)!).Order(StringComparer.Ordinal);

    public static byte[] Read(string name) => File.ReadAllBytes(Path.Combine(Directory, name));

    /// <summary>So many rounds, or as many as there is time for.</summary>
    public static IEnumerable<int> Rounds(int rounds)
    {
        var watch = Stopwatch.StartNew();
        double seconds = double.TryParse(Environment.GetEnvironmentVariable("FCTRANS_FUZZ_SECONDS"), CultureInfo.InvariantCulture, out double s) ? s : 0;
        for (int round = 0; seconds > 0 ? watch.Elapsed.TotalSeconds < seconds : round < rounds; round++)
        {
            yield return round;
        }
    }

    /// <summary>Keeps an input that led to something new, where that is asked for.</summary>
    public static void Keep(string kind, byte[] input)
    {
        if (Environment.GetEnvironmentVariable("FCTRANS_FUZZ_KEEP") is { Length: > 0 } directory)
        {
            File.WriteAllBytes(Path.Combine(directory, $"{kind}-{Convert.ToHexStringLower(SHA256.HashData(input))[..12]}.bin"), input);
        }
    }

    /// <param name="kind">Of the input.</param>
    /// <param name="rounds">In a run of the tests.</param>
    /// <param name="first">Inputs to begin with, beside the corpus.</param>
    /// <param name="survive">Tells in words what an input came to; numbers in them make no difference.</param>
    public static void Run(string kind, int rounds, IEnumerable<byte[]> first, Func<byte[], string> survive)
    {
        var seeds = new List<byte[]>();
        var outcomes = new HashSet<string>(StringComparer.Ordinal);
        foreach (byte[] input in first.Concat(Names(kind).Select(Read)))
        {
            outcomes.Add(Survive(survive, input, "Kept"));
            seeds.Add(input);
        }

        int seed = Environment.TickCount & 0xffffff;
        var random = new Random(seed);
        foreach (int round in Rounds(rounds))
        {
            byte[] input = Mutate(random, seeds[random.Next(seeds.Count)], seeds[random.Next(seeds.Count)]);
            if (outcomes.Add(Survive(survive, input, $"Seed {seed}, round {round}")))
            {
                Keep(kind, input);
                if (seeds.Count < MaxSeeds)
                {
                    seeds.Add(input);
                }
            }
        }
    }

    /// <summary>One input; its bytes are in the message of what fails.</summary>
    public static string Survive(Func<byte[], string> survive, byte[] input, string name)
    {
        var watch = Stopwatch.StartNew();
        try
        {
            string outcome = Numbers().Replace(survive(input), "#");
            Assert.True(watch.Elapsed < Limit, $"It took {watch.Elapsed}.");
            return outcome;
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{name}: {e.Message}. The input: {Convert.ToBase64String(input)}", e);
        }
    }

    private static byte[] Mutate(Random random, byte[] seed, byte[] other)
    {
        var input = new List<byte>(seed);
        for (int change = random.Next(1, 6); change > 0; change--)
        {
            int at = input.Count == 0 ? 0 : random.Next(input.Count);
            switch (random.Next(7))
            {
                case 0 when input.Count > 0:
                    input[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 1 when input.Count > 0:
                    input[at] = (byte)random.Next(256);
                    break;
                case 2:
                    byte[] word = BitConverter.GetBytes(random.Next(3) == 0 ? (ulong)random.NextInt64() : s_words[random.Next(s_words.Length)]);
                    int length = 1 << random.Next(4);
                    for (int i = 0; i < length && at + i < input.Count; i++)
                    {
                        input[at + i] = word[i];
                    }

                    break;
                case 3 when input.Count > 1:
                    input.RemoveRange(at, random.Next(1, Math.Min(64, input.Count - at) + 1));
                    break;
                case 4 when other.Length > 0:
                    int from = random.Next(other.Length);
                    input.InsertRange(at, other.AsSpan(from, random.Next(1, Math.Min(64, other.Length - from) + 1)).ToArray());
                    break;
                case 5:
                    byte[] fresh = new byte[random.Next(1, 25)];
                    random.NextBytes(fresh);
                    input.InsertRange(at, fresh);
                    break;
                case 6 when input.Count > 0:
                    // A digit for another, which keeps text what it is.
                    input[at] = (byte)('0' + random.Next(10));
                    break;
            }
        }

        return input.Count > 4096 ? [.. input.GetRange(0, 4096)] : [.. input];
    }

    [GeneratedRegex("0x[0-9a-f]+|[0-9]+")]
    private static partial Regex Numbers();
}
